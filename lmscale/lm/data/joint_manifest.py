"""One manifest for the sources of a mixture, with the one to validate on where that is another."""

import hashlib
import json

from lmscale.core.errors import UserError
from lmscale.lm.data import corpora
from lmscale.lm.data.manifest import Manifest


def joint_manifest(weights: tuple[int, ...], manifests: tuple[Manifest, ...]) -> Manifest:
    """The manifest of several weighted sources together, and of one more to validate on if there is one more.

    Raises `UserError` where they do not share their ids.
    """
    components, held_out = manifests[: len(weights)], (*manifests[len(weights) :], None)[0]
    _check_ids(manifests)
    first, identity = components[0], [list(weights), [component.fingerprint for component in components]]
    corpus_identity = [list(weights), [component.corpus_fingerprint for component in components]]
    source = first.source
    if len(components) > 1:
        shares = [f"{weight / sum(weights):.4g}" for weight in weights]
        source = " + ".join(f"{share} * {component.source}" for share, component in zip(shares, components))
    if held_out is not None:
        identity.append([held_out.fingerprint])
        corpus_identity.append([held_out.corpus_fingerprint])
        source += f", validated on {held_out.source}"
    counts = {
        f"{split}_{name}": sum(getattr(manifest, f"{split}_{name}") for manifest in manifests)
        for split in corpora.SPLITS
        for name in ("tokens", "documents", "bytes")
    }
    if held_out is not None:  # an endless component holds out text that is not used
        counts |= {name: getattr(held_out, name) for name in counts if name.startswith("validation")}
    sums = ("duplicates_removed", "near_duplicates_removed", "empty_removed")
    return Manifest(
        source=source,
        fingerprint=_digest(identity),
        corpus_fingerprint=_digest(corpus_identity),
        tokenizer=first.tokenizer,
        tokenizer_file=next((manifest.tokenizer_file for manifest in manifests if manifest.tokenizer_file), None),
        tokenizer_fingerprint=first.tokenizer_fingerprint,
        vocab=first.vocab,
        end_of_document=first.end_of_document,
        dtype=first.dtype,
        skipped=tuple(item for manifest in manifests for item in manifest.skipped),
        versions={name: value for manifest in manifests for name, value in manifest.versions.items()},
        weights=weights,
        components=components,
        held_out=held_out,
        **counts,
        **{name: sum(getattr(manifest, name) for manifest in manifests) for name in sums},
    )


def _digest(identity: object) -> str:
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _check_ids(manifests: tuple[Manifest, ...]) -> None:
    """Raise `UserError` unless all sources have the same ids."""
    first = manifests[0]
    for other in manifests[1:]:
        if (other.tokenizer, other.vocab, other.end_of_document) != (
            first.tokenizer,
            first.vocab,
            first.end_of_document,
        ):
            raise UserError(
                f"{first.source} has the tokens of {first.tokenizer!r} and {other.source} those of "
                f"{other.tokenizer!r}, so they cannot be mixed; give documents=N to a synthetic language, which then "
                f"is text like any other"
            )
