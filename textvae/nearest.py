"""The nearest rows by cosine, exactly. Shapes: Q queries, C rows of a chunk, D dimensions, K neighbours."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def nearest(queries_QD: FloatArray, chunks: Iterable[FloatArray], k: int) -> tuple[IntArray, FloatArray]:
    """The `k` rows with the largest cosine to each query, over all chunks: their numbers and cosines, both (Q, k).

    Exact; of equal cosines the lower row comes first. A zero vector has the cosine 0 with everything. Only k columns
    and one chunk are in memory; with fewer than k rows, all are returned.
    """
    queries_QD = normalised(queries_QD)
    rows_QK = np.zeros((len(queries_QD), 0), np.int64)
    cosines_QK = np.zeros((len(queries_QD), 0))
    start = 0
    for chunk_CD in chunks:
        numbers_QC = np.broadcast_to(np.arange(start, start + len(chunk_CD)), (len(queries_QD), len(chunk_CD)))
        rows_QK = np.hstack([rows_QK, numbers_QC])
        cosines_QK = np.hstack([cosines_QK, queries_QD @ normalised(chunk_CD).T])
        best_QK = np.argsort(-cosines_QK, axis=1, kind="stable")[:, :k]
        rows_QK = np.take_along_axis(rows_QK, best_QK, 1)
        cosines_QK = np.take_along_axis(cosines_QK, best_QK, 1)
        start += len(chunk_CD)
    return rows_QK, cosines_QK


def normalised(vectors_ND: FloatArray) -> FloatArray:
    """Vectors of length 1; zero stays zero."""
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.where(lengths_N1 == 0, 1.0, lengths_N1)
