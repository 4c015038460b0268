"""Model settings that a model cannot be asked with: told before it is asked, by what is known of its name and API."""

from typing import TYPE_CHECKING

from fbench.engine.errors import UsageError
from fbench.engine.models.families import refuses_sampling
from fbench.engine.models.names import ModelSpec, split_model_name
from fbench.engine.models.openai import uses_responses

if TYPE_CHECKING:
    from fbench.engine.options import RunOptions
    from fbench.tasks.manifest import TaskManifest


def fit_settings(
    manifest: "TaskManifest", spec: ModelSpec, options: "RunOptions"
) -> tuple["TaskManifest", tuple[str, ...]]:
    """The resolved manifest without settings that cannot be sent, and a warning for each. It is as with a dollar cap
    without a price: one of the task is left out and said, one that the user asks for now is refused.

    Raises:
        UsageError: such a setting was given as an option.
    """
    unsent = {}
    for key, why in unsendable_settings(spec).items():
        if getattr(manifest.model, key) is None:
            continue
        flag = f"--{key.replace('_', '-')}"
        if getattr(options, key) not in {None, "none"}:
            msg = f"{flag} cannot be sent: {why}; leave it out, or say `{flag} none`"
            raise UsageError(msg)
        unsent[key] = f"the manifest's model.{key} is not sent: {why}"
    if not unsent:
        return manifest, ()
    model = manifest.model.model_copy(update=dict.fromkeys(unsent))
    return manifest.model_copy(update={"model": model}), tuple(unsent.values())


def unsendable_settings(spec: ModelSpec) -> dict[str, str]:
    """The settings that this model cannot be asked with, and why."""
    unsendable: dict[str, str] = {}
    if refuses_sampling(split_model_name(spec.full_name)[1]):
        unsendable |= dict.fromkeys(("temperature", "top_p"), f"{spec.full_name} is a reasoning model and takes none")
    if uses_responses(spec):
        unsendable["seed"] = f"{spec.full_name} is asked by the Responses API, which has no seed"
    return unsendable
