"""A model that looks text up: an index of a corpus, and what retrieval is worth against the size of a datastore.

`index`, `build` and `hnsw` keep the chunks of a corpus as vectors; `knn`, `passages` and `docstrings` measure; `exam`
makes scores of that. `lm.use.ask` answers a question from an index.
"""
