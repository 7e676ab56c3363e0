"""What ``python -m tests.where_bits_go`` prints, on a few rows."""

import pytest

from tests import where_bits_go


def test_where_bits_go_adds_up(capsys):
    where_bits_go.main(["--rows", "10"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["T", *where_bits_go.SYMBOLS, "sum", "sent"]
    for line in lines:
        *parts, total, sent = map(float, line.split()[1:])
        assert all(part > 0 for part in parts)
        assert sum(parts) == pytest.approx(total, abs=0.5)
        # Of the two rounds' padding and of the coder's rounding.
        assert -0.2 <= sent - total <= 9 / where_bits_go.ROUND
