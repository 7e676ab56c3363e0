"""Errors in the format of the OpenAI API."""

from typing import Any

from starlette.responses import JSONResponse, Response

UNHEARD = (401, 403, 408, 413, 431)  # the connection closes without reading the rest


class ApiError(Exception):
    """An HTTP error; `param` names the wrong field, `code` is for programs."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
        kind = "invalid_request_error" if status < 429 else "server_error"
        self.body: dict[str, Any] = {
            "error": {
                "message": message,
                "type": "rate_limit_error" if status == 429 else kind,
                "param": param,
                "code": code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        if self.retry_after is not None:
            return {"retry-after": str(self.retry_after)}
        return {"connection": "close"} if self.status in UNHEARD else {}


def refusal(error: ApiError) -> Response:
    return JSONResponse(error.body, error.status, error.headers)
