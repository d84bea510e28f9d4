"""The URL of a trigger: a text, a secret, or a template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import PlainSerializer, PlainValidator, ValidationInfo

from worker.contract.settings.http import TemplateChoice
from worker.contract.settings.values.fields import secret_of, wrong
from worker.contract.settings.values.secrets import Secret, is_reference

_HINT: Final = 'write a text, "env:NAME", or { template = "url.jsonnet" }'


@dataclass(frozen=True, slots=True)
class TargetUrl:
    """The address of a trigger's requests.

    Args:
        text: As it stands in the configuration; "" where it is a secret or a template.
        secret: Holds it, if it must not be shown.
        template: Makes it for each event.
    """

    text: str = ""
    secret: Secret | None = None
    template: str = ""

    @property
    def value(self) -> str:
        """Return the URL as a text; "" for a template, and for a secret that is not set."""
        return (self.secret.value or "") if self.secret else self.text

    @property
    def shown(self) -> str:
        """Return the URL as it may be printed: of a secret, only its origin, such as `env:NAME`."""
        return self.secret.origin if self.secret else self.text

    def __bool__(self) -> bool:
        return bool(self.text or self.secret or self.template)


def _read(value: Any, info: ValidationInfo) -> TargetUrl:
    if isinstance(value, TargetUrl):
        return value
    if isinstance(value, dict):
        return TargetUrl(
            template=TemplateChoice.model_validate(value, context=info.context).template
        )
    if not isinstance(value, str):
        raise wrong("is not a URL", _HINT)
    return TargetUrl(secret=secret_of(value, info)) if is_reference(value) else TargetUrl(value)


def _written(url: TargetUrl) -> Any:
    return {"template": url.template} if url.template else url.shown


TriggerUrl = Annotated[
    TargetUrl, PlainValidator(_read), PlainSerializer(_written, when_used="json")
]
