"""The API key and the certificates: from the settings to the connection."""

from __future__ import annotations

import ssl
from pathlib import Path

from inferq.errors import EngineStartError
from inferq.settings import OpenAISettings


def headers_of(key: str) -> dict[str, str]:
    """What goes with every request."""
    headers = {"accept-encoding": "identity"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    return headers


def read_key(settings: OpenAISettings) -> str:
    """The API key, or nothing.

    Raises:
        EngineStartError: the file cannot be read, or the key is none.
    """
    key, name = settings.api_key, "openai.api_key"
    if settings.api_key_file is not None:
        name = "openai.api_key_file"
        try:
            key = Path(settings.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise EngineStartError(
                f"{name}={settings.api_key_file!r}: cannot be read ({type(exc).__name__})"
            ) from None
    if not all("!" <= char <= "~" for char in key):
        raise EngineStartError(f"{name}: a key has visible ASCII characters only")
    return key


def tls_of(settings: OpenAISettings) -> ssl.SSLContext | bool:
    """How the server's certificate is checked, and what is shown to it.

    Raises:
        EngineStartError: a certificate or key cannot be used.
    """
    if not settings.base_url.startswith("https"):
        return False
    name = "openai.ca_file"
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if not settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings.cert_file is not None:
            name = "openai.cert_file"
            # Without a callback OpenSSL would ask at the terminal for the key's password.
            context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    except (OSError, ValueError) as exc:
        raise EngineStartError(f"{name}: cannot be used ({type(exc).__name__})") from None
    return context
