"""The memory that a computation needs at once, counted on the meta device: real shapes, nothing computed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from unittest import mock

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While it is entered, `peak` is the most bytes of tensors held at once, those of `known` tensors not
    counted.

    Attention is taken to need no more than its result, as the fused kernels do.
    """

    def __init__(self, known: Iterable[torch.Tensor] = ()):
        super().__init__()
        self.peak = 0
        self._total = 0  # of `_live`, what may have gone included
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._patches = ExitStack()

    def __enter__(self):
        attention = mock.patch(
            "torch.nn.functional.scaled_dot_product_attention",
            lambda query, key=None, value=None, **options: torch.empty_like(query),
        )
        self._patches.enter_context(attention)
        return super().__enter__()

    def __exit__(self, *error):
        self._patches.close()
        return super().__exit__(*error)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **kwargs or {})
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known and storage._cdata not in self._live:
                    self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                    self._total += storage.nbytes()
        if self._total > self.peak:  # what has gone since is only looked for where it may matter
            self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
            self._total = sum(nbytes for _, nbytes in self._live.values())
            self.peak = max(self.peak, self._total)
        return result
