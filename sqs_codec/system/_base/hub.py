"""Checks before the Hugging Face library would retry for a long time."""

import os


def lacks_folder(model: str) -> bool:
    """Tell whether a model is a directory path that doesn't exist."""
    is_path = model.startswith((".", "~", "/")) or model.count("/") > 1
    return is_path and not os.path.isdir(model)


def ask_hub(name: str, file: str, revision: str | None = None) -> None:
    """Raise at once, instead of after 30 s, if the hub is needed and unreachable."""
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
    if not isinstance(cached, str):
        try:
            huggingface_hub.file_exists(name, file, revision=revision)
        except huggingface_hub.errors.HfHubHTTPError:
            return  # the hub answers; leave its error to the library
        except Exception as error:  # from any HTTP library
            raise ValueError(f"the Hugging Face hub doesn't answer: {error}") from error
