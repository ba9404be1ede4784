"""Changes of an operator's catalogue file that leave the rest of it as it was, comments and order included."""

from typing import Any

import msgspec
import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable

from vipcloud.errors import SettingsError
from vipcloud.providers.catalog import merge
from vipcloud.providers.catalog_rows import Status


def with_status(text: str, model_id: str, status: Status) -> str:
    """The file's text with the model's status changed. Raises SettingsError where that cannot be done safely.

    The result is decoded and compared: it says this one thing more than before, and everything else as before.
    """
    try:
        before: dict[str, Any] = msgspec.toml.decode(text)
    except msgspec.DecodeError as error:
        raise SettingsError(f"it is not TOML: {error}.") from error
    wanted = merge(before, {"models": {model_id: {"status": status}}})
    if wanted == before:
        return text
    try:
        changed = _edited(text, model_id, status)
        if msgspec.toml.decode(changed) == wanted:
            return changed
    except (TOMLKitError, msgspec.DecodeError, TypeError, AttributeError) as error:
        raise SettingsError(_by_hand(model_id, status)) from error
    raise SettingsError(_by_hand(model_id, status))


def _edited(text: str, model_id: str, status: Status) -> str:
    document = tomlkit.parse(text)
    models = document.get("models")
    if models is None:
        models = document["models"] = tomlkit.table(is_super_table=True)
    if model_id in models:
        models[model_id]["status"] = status
    else:
        row: Any = tomlkit.inline_table() if isinstance(models, InlineTable) else tomlkit.table()
        row["status"] = status
        models[model_id] = row
    return tomlkit.dumps(document)


def _by_hand(model_id: str, status: Status) -> str:
    return (
        f'its form is too unusual to be changed here; write status = "{status}" under [models."{model_id}"] yourself.'
    )
