"""The Hugging Face hub, asked before its library asks again and again."""

import os


def lacks_folder(model: str) -> bool:
    """Say whether a model is a folder, not a name on the hub, and isn't there."""
    is_path = model.startswith((".", "~", "/")) or model.count("/") > 1
    return is_path and not os.path.isdir(model)


def ask_hub(name: str, file: str, revision: str | None = None) -> None:
    """Raise at once, not after half a minute, if the hub is needed and down."""
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
    if not isinstance(cached, str):
        try:
            huggingface_hub.file_exists(name, file, revision=revision)
        except huggingface_hub.errors.HfHubHTTPError:
            return  # it answers, and the library says best what
        except Exception as error:  # of whichever library it uses for HTTP
            raise ValueError(f"the Hugging Face hub doesn't answer: {error}") from error
