"""Run by a Python with megatron-core, datasets and datatrove: the documents of a file, written by each of them.

python write_tokens.py DOCUMENTS.json FOLDER; DOCUMENTS holds {"texts": [text], "ids": [[id]]}. Prints the names of the
packages that wrote: those that are not there are left out.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np

source = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
folder = Path(sys.argv[2])
texts, ids = source["texts"], source["ids"]
folder.mkdir(parents=True, exist_ok=True)


def megatron() -> None:
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    for dtype in (np.uint16, np.int32):
        prefix = folder / f"megatron_{dtype.__name__}"
        builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
        for document in ids:  # of two sequences each
            half = len(document) // 2
            builder.add_document(torch.tensor(document), [half, len(document) - half])
        builder.finalize(f"{prefix}.idx")


def datatrove() -> None:
    from datatrove.pipeline.tokens.megatron_tokenizer import MegatronTokenizedFile
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile

    pairs = MegatronTokenizedFile(str(folder), "datatrove_megatron", token_size=2)
    flat = TokenizedFile(
        str(folder), "datatrove.ds", tokenizer_name_or_path="tokenizer.json", save_final_metadata=True, token_size=4
    )
    for document in ids:
        pairs.write(document)
        flat.write(document, None)
    pairs.close()
    flat.close()


def datasets() -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"input_ids": ids})
    rows.save_to_disk(str(folder / "datasets_ids"), num_shards=2)
    held_out = datasets.Dataset.from_dict({"input_ids": ids[-2:]})
    splits = datasets.DatasetDict({"train": rows.select(range(len(ids) - 2)), "validation": held_out})
    splits.save_to_disk(str(folder / "datasets_splits"))
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(folder / "datasets_text"), num_shards=2)


written = []
for write in (megatron, datatrove, datasets):
    with contextlib.suppress(ImportError), contextlib.redirect_stdout(sys.stderr):
        write()
        written.append(write.__name__)
print(json.dumps(written))
