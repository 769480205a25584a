"""Chooses the format of an endpoint."""

from __future__ import annotations

from collections.abc import Sequence

from workers.actions.coop import Coop
from workers.actions.dsa import Dsa
from workers.actions.format import Format
from workers.actions.secrets import Secrets
from workers.actions.webhook import Webhook
from workers.settings.action_sections import Endpoint


def format_of(endpoint: Endpoint, secrets: Secrets, carry_attributes: bool | Sequence[str] = True) -> Format:
    """Return the format that an endpoint's settings name. `secrets` holds the headers of its calls, as they are now.

    `carry_attributes`: the attributes of the event that a webhook has, by the setting `events.carry_attributes`.
    """
    match endpoint.format:
        case "webhook":
            return Webhook(secrets, carry_attributes)
        case "coop":
            assert endpoint.coop is not None  # The settings require it.
            return Coop(endpoint.coop, secrets)
        case "dsa":
            assert endpoint.statements is not None  # The settings require it.
            return Dsa(endpoint.statements, lambda: secrets.headers)
