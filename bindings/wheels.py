"""Build the wheels for all platforms on one Linux machine, and audit them.

    python bindings/wheels.py [--out dist] [NAME ...]

Each wheel comes from the sdist with the ordinary build, except that ``CC`` and
``LDSHARED`` name Zig, which compiles for every platform. Then an audit checks that the
wheel is for the platform in its name, uses only Python's stable ABI of 3.10 and the C
library, and exports only its ``PyInit``. ``SOURCE_DATE_EPOCH``, by default the time of
the last commit, makes builds reproducible. The build uses no network.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import abi3info
import lief
import ziglang
from wheel.wheelfile import WheelFile

ROOT = Path(__file__).parents[1]
ZIG = Path(ziglang.__file__).with_name("zig")
OLDEST = 3, 10


class Family(NamedTuple):
    """The properties that platforms of one kind share."""

    linking: str
    libraries: re.Pattern[str]  # that a module may load
    exports: set[str]  # that are allowed, except PyInit
    compiling: str = ""
    ending: str = ".abi3.so"


LINUX = Family("-Wl,--gc-sections", re.compile(r"libc\.so(\.6)?"), set())
MACOS = Family(
    "-Wl,-dead_strip -undefined dynamic_lookup -Wl,-install_name,_sqs.abi3.so",
    re.compile(r"/usr/lib/libSystem\.B\.dylib"),
    {"mh_dylib_header", "dso_handle"},
)
WINDOWS = Family(
    "-Wl,--gc-sections {work}/python3.lib",
    re.compile(r"python3\.dll|KERNEL32\.dll|api-ms-win-crt-[a-z0-9-]+\.dll"),
    set(),
    # The definitions of pyconfig.h on Windows, instead of this machine's pyconfig.h.
    "-DPy_PYCONFIG_H -DMS_WINDOWS -DMS_WIN64 -DHAVE_DECLSPEC_DLL -DPy_ENABLE_SHARED"
    " -DSIZEOF_INT=4 -DSIZEOF_LONG=4 -DSIZEOF_LONG_LONG=8 -DSIZEOF_SIZE_T=8"
    " -DSIZEOF_VOID_P=8 -DSIZEOF_WCHAR_T=2",
    ".pyd",
)


class Platform(NamedTuple):
    """A platform as wheels, Zig and Python spell it."""

    tag: str
    target: str
    host: str
    family: Family


PLATFORMS = [
    Platform("manylinux_2_17_x86_64", "x86_64-linux-gnu.2.17", "linux-x86_64", LINUX),
    Platform(
        "manylinux_2_17_aarch64", "aarch64-linux-gnu.2.17", "linux-aarch64", LINUX
    ),
    Platform("musllinux_1_2_x86_64", "x86_64-linux-musl", "linux-x86_64", LINUX),
    Platform("musllinux_1_2_aarch64", "aarch64-linux-musl", "linux-aarch64", LINUX),
    Platform("macosx_10_13_x86_64", "x86_64-macos.10.13", "macosx-10.13-x86_64", MACOS),
    Platform("macosx_11_0_arm64", "aarch64-macos.11.0", "macosx-11.0-arm64", MACOS),
    Platform("win_amd64", "x86_64-windows-gnu", "win-amd64", WINDOWS),
]


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """Run a command that must succeed, and return what it printed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def make_sdist(work: Path) -> Path:
    """Build and unpack the sdist; wheels are built from nothing else."""
    build = sys.executable, "-m", "build", "--sdist", "--no-isolation"
    run(*build, "--outdir", work)
    (sdist,) = work.glob("*.tar.gz")
    run("tar", "-xzf", sdist, "-C", work)
    source = work / sdist.name.removesuffix(".tar.gz")
    run("chmod", "-R", "u=rwX,go=rX", source)  # whatever the umask was
    return source


def make_import_library(to: Path) -> None:
    """Write an import library for python3.dll with the names of the stable ABI."""
    functions = [name.name for name, f in abi3info.FUNCTIONS.items() if is_old(f)]
    datas = [f"{name.name} DATA" for name, d in abi3info.DATAS.items() if is_old(d)]
    lines = ["LIBRARY python3.dll", "EXPORTS", *sorted(functions), *sorted(datas)]
    definition = to.with_suffix(".def")
    definition.write_text("\n".join(lines))
    run(ZIG, "dlltool", "-m", "i386:x86-64", "-d", definition, "-l", to)


def is_old(item: abi3info.models.Function | abi3info.models.Data) -> bool:
    """Return whether the oldest supported Python has it."""
    return (item.added.major, item.added.minor) <= OLDEST


def build(platform: Platform, sdist: Path, out: Path) -> Path:
    """Build one wheel; return its path."""
    work = sdist.parent / platform.tag
    source = work / "source"
    shutil.copytree(sdist, source)
    cc = f"{shlex.quote(str(ZIG))} cc -target {platform.target}"
    linking = platform.family.linking.format(work=shlex.quote(str(sdist.parent)))
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        f"--config-setting=--build-option=--plat-name={platform.tag}",
        *("--outdir", work, "."),
        cwd=source,
        CC=cc,
        CFLAGS=platform.family.compiling,
        LDSHARED=f"{cc} -shared -s {linking}",
        _PYTHON_HOST_PLATFORM=platform.host,
    )
    (built,) = work.glob("*.whl")
    to = out / built.name
    # setuptools gives modules the ending of this machine's Python, and adds the import
    # library that Zig makes for Windows.
    with WheelFile(built) as given, WheelFile(to, "w") as wheel:
        for item in given.infolist():
            content = given.read(item)
            item.filename = item.filename.replace(".abi3.so", platform.family.ending)
            if not item.filename.endswith((".lib", "/RECORD")):
                wheel.writestr(item, content)
    return to


def audit(platform: Platform, wheel: Path) -> None:
    """Raise SystemExit if a wheel breaks a rule."""
    family = platform.family
    run(sys.executable, "-m", "abi3audit", "--strict", wheel)
    if family is LINUX:
        said = run(sys.executable, "-m", "auditwheel", "show", wheel)
        # The x86-64 module needs no newer C library than 2.5.
        wanted = platform.tag.replace("2_17_x86", "2_5_x86")
        if f'"{wanted}"' not in said:
            raise SystemExit(said)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(("abi3.so", ".pyd")))
        module = lief.parse(archive.read(name))
    exported = {f.name.lstrip("_") for f in module.exported_functions}
    needed = {str(library) for library in module.libraries}
    if family is MACOS:
        own = lief.MachO.LoadCommand.TYPE.ID_DYLIB
        needed = {each.name for each in module.libraries if each.command != own}
        oldest = module.version_min or module.build_version
        version = oldest.version if module.version_min else oldest.minos
        if f"_{version[0]}_{version[1]}_" not in platform.tag:
            raise SystemExit(f"{wheel.name} is for macOS {version}")
    surplus = {
        f"needs {each}" for each in needed if not family.libraries.fullmatch(each)
    }
    surplus |= {
        f"exports {each}" for each in exported - {"PyInit__sqs"} - family.exports
    }
    if surplus or "PyInit__sqs" not in exported:
        raise SystemExit(f"{wheel.name}: {', '.join(sorted(surplus))}")


def main() -> None:
    """Build and audit all wheels, or the named ones."""
    lief.logging.disable()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as win_amd64")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    platforms = [p for p in PLATFORMS if p.tag in options.names or not options.names]
    if unknown := set(options.names) - {p.tag for p in PLATFORMS}:
        parser.error(f"no such platform: {', '.join(sorted(unknown))}")
    if "SOURCE_DATE_EPOCH" not in os.environ:
        committed = run("git", "log", "-1", "--format=%ct").strip()
        os.environ["SOURCE_DATE_EPOCH"] = committed
    os.umask(0o022)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        sdist = make_sdist(Path(folder))
        make_import_library(sdist.parent / "python3.lib")
        wheels = list(pool.map(lambda p: build(p, sdist, out), platforms))
    for platform, wheel in zip(platforms, wheels, strict=True):
        audit(platform, wheel)
        print(f"{wheel.name:60} {wheel.stat().st_size // 1000:4} kB, audited")


if __name__ == "__main__":
    main()
