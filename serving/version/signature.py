"""The signature of a manifest, which says that who knows the key has published it.

The manifest has the checksums of all other files, so it stands for the whole version. The key is
in the environment's `FM_RECALL_SIGNING_KEY`, of who publishes and of who opens. Without one,
nothing is signed and no signature is asked for.

Source: HMAC, RFC 2104, with SHA-256.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from serving.atomic import write_text_atomic
from towers.environment import secret
from towers.errors import BundleError, ConfigError

SIGNATURE = "manifest.sig"
"""The file, beside the manifest."""
KEY, SHORTEST = "FM_RECALL_SIGNING_KEY", 16


def sign(manifest: Path) -> None:
    """Sign a manifest, if there is a key.

    Raises:
        ConfigError: the key is too short to be one.
    """
    key = _key()
    if key is not None:
        write_text_atomic(manifest.with_name(SIGNATURE), _code(key, manifest.read_bytes()))


def check_signature(manifest: Path, content: bytes) -> None:
    """Refuse a manifest whose content is not signed with the key, if there is one.

    Raises:
        BundleError: it is not.
        ConfigError: the key is too short to be one.
    """
    key = _key()
    if key is None:
        return
    try:
        found = manifest.with_name(SIGNATURE).read_bytes()
    except OSError:
        found = b""
    if not hmac.compare_digest(found.strip(), _code(key, content).encode().strip()):
        raise BundleError(
            f"{manifest}: expected a signature by the key in {KEY}, received "
            f"{'another' if found else 'none'}; publish with that key, or open without one"
        )


def _key() -> bytes | None:
    key = secret(KEY)
    if key is not None and len(key) < SHORTEST:
        raise ConfigError(f"{KEY}: expected at least {SHORTEST} characters, received {len(key)}")
    return None if key is None else key.encode()


def _code(key: bytes, content: bytes) -> str:
    return hmac.new(key, content, "sha256").hexdigest() + "\n"
