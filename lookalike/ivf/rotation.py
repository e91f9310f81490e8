"""The rotation before the codes: principal components, then OPQ among them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from lookalike.distances import Vectors
from lookalike.ivf.spec import IndexSpec
from lookalike.products import steady_products

faiss: Any = _faiss  # its own type stubs lack half of what is used here

Matrix = npt.NDArray[np.float64]


_PRODUCT = 256  # rows or components multiplied at once: longer sums depend on the threads
_NOTHING = 1e-6  # of the largest eigenvalue; directions under it are not learnt
_GRID = 2.0**-20  # what is under it depends on the threads of LAPACK


def train_rotation(blocks: Callable[[], Iterable[Vectors]], spec: IndexSpec) -> Vectors:
    """Principal components, then OPQ among them (Ge et al. 2013): (rotation_dim, dim), orthonormal.

    OPQ on all d components would need a d x d singular value decomposition in each iteration, with
    a result that depends on the number of threads. Also, Faiss writes past a buffer when OPQ is
    trained on fewer rows than it has output components. Here OPQ runs on the rotation_dim largest
    principal components only, as a square problem, on one thread.

    Args:
        blocks: Gives the rows (n, dim) float32 in blocks, each time it is called; n >= rotation_dim
            in all. Memory is that of a block, the covariance and n rotated rows.
        spec: From `plan`; its codes decide what is a good rotation.

    Raises:
        ValueError: There are fewer rows than components.
    """
    components = _principal(blocks(), spec)
    rows = np.concatenate([rotate(block, components) for block in blocks()])
    if len(rows) < spec.rotation_dim:
        raise ValueError(
            f"a rotation to {spec.rotation_dim} components is learned from as many rows at least, "
            f"got {len(rows):,}"
        )
    quantizer = faiss.ProductQuantizer(spec.rotation_dim, spec.subquantizers, spec.nbits)
    quantizer.cp.min_points_per_centroid = 1
    quantizer.cp.seed = spec.seed & 0x7FFFFFFF
    opq = faiss.OPQMatrix(spec.rotation_dim, spec.subquantizers, spec.rotation_dim)
    # More iterations lower the error by a tenth and take five times as long.
    opq.niter, opq.niter_pq_0, opq.niter_pq, opq.pq = 8, 8, 2, quantizer
    with one_thread():
        opq.train(rows)
    matrix = faiss.vector_to_array(opq.A).reshape(spec.rotation_dim, spec.rotation_dim)
    return np.ascontiguousarray(rotate(components.T, matrix).T)


def _principal(blocks: Iterable[Vectors], spec: IndexSpec) -> Vectors:
    """Eigenvectors of the largest eigenvalues of the rows' second moments, largest first."""
    moments = np.zeros((spec.dim, spec.dim), dtype=np.float64)
    for block in blocks:
        with one_thread():
            for start in range(0, len(block), _PRODUCT):
                part = block[start : start + _PRODUCT]
                moments += part.T @ part
    with one_thread():
        values, vectors = np.linalg.eigh(moments)
    kept = min(spec.rotation_dim, int((values > _NOTHING * values[-1]).sum()))
    components = vectors[:, ::-1][:, :kept].T
    # A component's sign is arbitrary; fix it.
    highest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(kept), highest])[:, None]
    components = _completed(np.round(components / _GRID) * _GRID, spec.rotation_dim)
    return np.ascontiguousarray(components, dtype=np.float32)


def _completed(basis: Matrix, count: int) -> Matrix:
    """More orthonormal rows after `basis` (k, d), `count` in all, by Gram-Schmidt; without LAPACK.

    LAPACK's choice among directions in which no vector points depends on its threads.
    """
    for _ in range(count - len(basis)):
        row = np.zeros(basis.shape[1])
        row[np.square(basis).sum(axis=0).argmin()] = 1  # the axis that is least covered
        for _ in range(2):  # once more for what rounding left
            row -= ((basis * row).sum(axis=1)[:, None] * basis).sum(axis=0)
        basis = np.concatenate([basis, row[None] / np.sqrt(np.square(row).sum())])
    return basis


@contextmanager
def one_thread() -> Iterator[None]:
    """Let Faiss and numpy's OpenBLAS use one thread in a block.

    What LAPACK returns depends on the threads. Faiss's wait for each other by spinning: where other
    processes want the cores, a training of many small steps takes ten times as long on two.
    """
    get, set_threads = _openblas()
    threads, blas_threads = faiss.omp_get_max_threads(), get()
    faiss.omp_set_num_threads(1)
    set_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
        set_threads(blas_threads)


def _openblas() -> tuple[Callable[[], int], Callable[[int], object]]:
    """OpenBLAS's own calls for its threads; without effect where numpy uses another BLAS.

    Then equal bits for other threads rest on `_GRID`, which is enough for most vectors.
    """
    library = ctypes.CDLL(np.linalg._umath_linalg.__file__)
    for name in ("scipy_openblas_{}64_", "openblas_{}64_", "scipy_openblas_{}", "openblas_{}"):
        if hasattr(library, name.format("set_num_threads")):
            return (
                getattr(library, name.format("get_num_threads")),
                getattr(library, name.format("set_num_threads")),
            )
    return lambda: 1, lambda _: None


def rotate(rows: Vectors, matrix: Vectors) -> Vectors:
    """Rows (n, dim) by a matrix (rotation_dim, dim): (n, rotation_dim) float32.

    The same bits whatever the threads, which Faiss's product does not give.
    """
    rotated = steady_products(rows[:, :_PRODUCT], matrix[:, :_PRODUCT])
    for start in range(_PRODUCT, rows.shape[1], _PRODUCT):
        part = slice(start, start + _PRODUCT)
        rotated += steady_products(rows[:, part], matrix[:, part])
    return np.ascontiguousarray(rotated)
