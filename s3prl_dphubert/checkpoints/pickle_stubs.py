"""Stand-ins for the untrusted classes and functions of a pickle, and their conversion to plain values."""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError


class Stub:
    """Record of how a pickle uses a class or function that is not trusted; calls nothing.

    A reference to the class itself becomes a subclass of this one, an object an instance of it.

    Attributes:
        module: module of the class or function, as the pickle states it.
        name: its name there.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        state: state of the object (usually its ``__dict__``).
        items: appended items, or ``(key, value)`` pairs.
    """

    module = name = ""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any]
    state: Any = None
    items: list[Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Stub:
        """Record the arguments."""
        stub = super().__new__(cls)
        stub.args, stub.kwargs, stub.items = args, kwargs, []
        return stub

    def __call__(self, *args: Any) -> Stub:
        """Record a call of the result of a call."""
        made = type(self)(*args)
        made.state = {"called": self}
        return made

    def __setstate__(self, state: Any) -> None:
        """Record the state."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Record an item."""
        self.items.append((key, value))

    def append(self, item: Any) -> None:
        """Record an item."""
        self.items.append(item)

    add = append

    def extend(self, items: list[Any]) -> None:
        """Record several items."""
        self.items.extend(items)

    def __repr__(self) -> str:
        return f"<{self.module}.{self.name}, not run>"


def plain(value: Any) -> Any:
    """Replace the stubs in the result of :func:`.unpickler.read_foreign_pickle` by plain values.

    An object becomes the dict of its attributes, an omegaconf node its content, a member of an
    enumeration its value, and a reference to a class or function its dotted name.

    Raises:
        CheckpointError: the tree contains itself or is nested too deep.
    """
    try:
        return _plain(value, {})
    except RecursionError as error:
        raise CheckpointError("the pickle is nested too deep to be a configuration") from error


def _plain(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, type) and issubclass(value, Stub):
        return f"{value.module}.{value.name}"
    if not isinstance(value, dict | list | tuple | Stub):
        return value
    if id(value) in done:
        if done[id(value)] is ...:
            raise CheckpointError("the pickle's configuration contains itself")
        return done[id(value)]
    done[id(value)] = ...
    result: Any
    if isinstance(value, dict):
        result = {key: _plain(item, done) for key, item in value.items()}
    elif isinstance(value, Stub):
        result = _plain(_content(value), done)
    else:
        result = type(value)(_plain(item, done) for item in value)
    done[id(value)] = result
    return result


def _content(stub: Stub) -> Any:
    """Return the content that the object would have."""
    state = stub.state
    if isinstance(state, tuple) and len(state) == 2:  # (__dict__, slots)
        state = {**(state[0] or {}), **(state[1] or {})}
    if isinstance(state, dict):
        for key in ("_content", "_val"):  # omegaconf's containers and values
            if key in state:
                return state[key]
        return state
    if stub.items:
        pairs = all(isinstance(item, tuple) and len(item) == 2 for item in stub.items)
        return dict(stub.items) if pairs else stub.items
    return stub.args[0] if len(stub.args) == 1 else f"{stub.module}.{stub.name}"
