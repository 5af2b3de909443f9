"""Sequences whose items are made when they are asked for."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

Item_co = TypeVar("Item_co", covariant=True)


class LazySequence(Sequence[Item_co]):
    """A sequence that knows its length, and makes the item at a place when it is asked for.

    A subclass has `__len__` and `item_at`; negative places and slices follow from them. Where
    reading in order is cheaper than place by place, it has `__iter__`, too.

    >>> class Squares(LazySequence[int]):
    ...     def __len__(self): return 5
    ...     def item_at(self, place): return place * place
    >>> Squares()[-1], Squares()[1:4], list(Squares())
    (16, (1, 4, 9), [0, 1, 4, 9, 16])
    """

    @abstractmethod
    def item_at(self, place: int) -> Item_co:
        """Return the item at a place from 0 on, which is inside the sequence."""

    @overload
    def __getitem__(self, index: int) -> Item_co: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item_co, ...]: ...
    def __getitem__(self, index: int | slice) -> Item_co | tuple[Item_co, ...]:
        """Return one item, or those of a slice."""
        length = len(self)
        if isinstance(index, slice):
            return tuple(self.item_at(place) for place in range(*index.indices(length)))
        place = index + length if index < 0 else index
        if not 0 <= place < length:
            raise IndexError(f"item {index} of {length}")
        return self.item_at(place)
