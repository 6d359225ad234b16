"""How calls and their answers travel: msgpack, typed by the annotations of the methods.

A typed call is the array `[name, {parameter: value, ...}]`. Arguments go by name, so that reordering the parameters of
a method can never swap their meaning in a log that is years old. The *caller* fills in the defaults: two replicas of
different releases then agree on what was called. A replica fills in only what the caller's release did not have.
"""

from __future__ import annotations

import builtins
import copy
import inspect
import types
import typing
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import msgspec

from graft import _engine, _sendable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_encode = msgspec.msgpack.Encoder().encode
_header = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
_plain = msgspec.msgpack.Decoder()
_astuple = msgspec.structs.astuple
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
_OPTIONS = ("timeout", "consistency")
_NO_VALUE = (typing.NoReturn, typing.Never)
_DEPTH_SURE_BYTES = 100
"""So few bytes cannot nest too deep: each array or map takes one at least."""
_TOO_DEEP = "it is nested more than 100 deep"
"""In the engine's words, for what nests so deep that it does not come to be msgpack: what an interpreter says of it
differs by its release, and this is an answer that all replicas give alike."""


class Shape:
    """The parameters and the result of one command or query, ready to be encoded, checked and decoded."""

    def __init__(self, name: str, function: Callable[..., Any], local_names: Mapping[str, Any]) -> None:
        self.name = name
        self._title = function.__qualname__.rpartition("<locals>.")[2]
        hints = _hints(self._title, function, local_names)
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[1:]
        self._signature = signature.replace(parameters=parameters)
        self._parameters = self.parameters = parameters
        self._simple = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        self._names = [p.name for p in parameters]
        self._takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._types = {p.name: _parameter_type(p, hints) for p in parameters}
        self._prefix = b"\x92" + _encode(name)
        self._arguments = self._arguments_decoder()
        self.returns = self._result_type(hints)
        self._result = msgspec.msgpack.Decoder(self.returns)

    def _arguments_decoder(self) -> msgspec.msgpack.Decoder[Any]:
        fields: list[Any] = []
        for parameter in self._parameters:
            type_ = self._types[parameter.name]
            try:
                msgspec.msgpack.Decoder(type_)
            except TypeError as error:
                raise TypeError(f"{self._title}(): argument {parameter.name!r} cannot be replicated: {error}") from None
            trouble = _sendable.trouble(type_)
            if trouble is not None:
                raise TypeError(f"{self._title}(): argument {parameter.name!r} cannot be replicated: {trouble}")
            fields.append((parameter.name, type_, *_default(parameter)))
        kind = msgspec.defstruct(self.name, fields, kw_only=True, forbid_unknown_fields=True)
        return msgspec.msgpack.Decoder(kind)

    def _result_type(self, hints: dict[str, Any]) -> Any:
        type_ = result_type(hints.get("return", Any))
        try:
            msgspec.msgpack.Decoder(type_)
        except TypeError as error:
            raise TypeError(f"{self._title}(): its result cannot be returned: {error}") from None
        trouble = _sendable.trouble(type_)
        if trouble is not None:
            raise TypeError(f"{self._title}(): its result cannot be returned: {trouble}")
        return type_

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """The call as bytes. What a replica could not read back by the annotations is refused here, as a `TypeError`
        (or a `ValueError`, for a value out of range) that names the argument."""
        if self._simple and not kwargs and len(args) == len(self._names):
            arguments: dict[str, Any] = dict(zip(self._names, args, strict=True))
        else:
            arguments = self._bind(args, kwargs)
        try:
            encoded = _encode(arguments)
        except _UNENCODABLE as error:
            raise self._unencodable(arguments, error) from None
        body = self._prefix + encoded
        trouble = call_trouble(body)
        if trouble is not None:
            raise self._unreadable(arguments, trouble)
        try:
            self._arguments.decode(encoded)
        except msgspec.ValidationError as error:
            raise self._mismatch(str(error)) from None
        return body

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            from graft._config import nearest

            words = f"{self._title}{self._signature}: {error}"
            unknown = [name for name in kwargs if name not in self._names]
            options = [f"{name}=..." for name in _OPTIONS if name in unknown]
            # Of two mistakes in a call Python names one, and what is missing may be what was misspelt.
            for name in unknown:
                if name not in _OPTIONS and not self._takes_any:
                    words += "" if f"{name!r}" in str(error) else f"; there is no argument {name!r}"
                    words += f"; {nearest(name, self._names)}"
            if options:
                words += f"; how the call is made is said apart from it: node.options({', '.join(options)})"
            raise TypeError(words) from None
        bound.apply_defaults()
        return bound.arguments

    def _unencodable(self, arguments: dict[str, Any], error: Exception) -> Exception:
        for name, value in arguments.items():
            try:
                _encode(value)
            except _UNENCODABLE as cause:
                kind = TypeError if isinstance(cause, TypeError) else ValueError
                return kind(f"{self._title}(): argument {name!r} cannot be encoded: {_unencodable(cause)}")
        return error

    def _unreadable(self, arguments: dict[str, Any], trouble: str) -> ValueError:
        for name, value in arguments.items():
            found = call_trouble(self._prefix + _encode({name: value}))
            if found is not None:
                return ValueError(f"{self._title}(): argument {name!r} cannot be replicated: {found}")
        return ValueError(f"{self._title}(): the call cannot be replicated: {trouble}")

    def _mismatch(self, words: str) -> TypeError:
        # msgspec says: Expected `int`, got `str` - at `$.amount`
        what, _, where = words.partition(" - at `$.")
        path = where.rstrip("`")
        if not path:
            return TypeError(f"{self._title}(): {_lower(words).replace('`', '')}")
        return TypeError(f"{self._title}(): argument '{path}': {_lower(what).replace('`', '')}")

    def decode(self, encoded: msgspec.Raw) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments by place and those by name that the method is to be called with. Raises
        `msgspec.ValidationError` if they do not fit the annotations."""
        values = _astuple(self._arguments.decode(encoded))
        if self._simple:
            return values, {}
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for parameter, value in zip(self._parameters, values, strict=True):
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional.extend(value)
            elif parameter.kind is parameter.VAR_KEYWORD:
                keywords.update(value)
            elif parameter.kind is parameter.KEYWORD_ONLY:
                keywords[parameter.name] = value
            else:
                positional.append(value)
        return tuple(positional), keywords

    def decode_result(self, encoded: bytes) -> Any:
        """What the method returned, by its annotation."""
        return self._result.decode(encoded)


split_call = _header.decode
"""The name of a typed call, and its arguments still encoded. Raises `msgspec.DecodeError` if it is none."""


def call_trouble(body: bytes) -> str | None:
    """Why not every replica could read, and keep, the arguments of this call; None if each can. In a call nest at most
    100 arrays and maps, its own two among them, and the only msgpack extensions are timestamps."""
    return _native()(body, False)


def encode_result(value: object) -> bytes:
    """What a method returned, as bytes. Raises a `TypeError` that says why if that cannot be: also if more than 100
    arrays and maps nest in it, which not everybody could read."""
    if value is None:
        return b"\xc0"
    try:
        encoded = _encode(value)
    except _UNENCODABLE as error:
        raise TypeError(_unencodable(error)) from None
    if len(encoded) > _DEPTH_SURE_BYTES:
        trouble = _native()(encoded, True)
        if trouble is not None:
            raise TypeError(trouble)
    return encoded


def decode_plain(encoded: bytes) -> Any:
    """A value without an annotation to go by."""
    return _plain.decode(encoded)


def result_type(annotation: Any) -> Any:
    """What to decode a result as."""
    return Any if annotation in (object, *_NO_VALUE) else annotation


def _hints(title: str, function: Callable[..., Any], local_names: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, localns=dict(local_names), include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{title}(): the annotation name {error.name!r} cannot be found when the program runs; "
            "import it outside of `if TYPE_CHECKING:`"
        ) from None


def _parameter_type(parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    type_: Any = hints.get(parameter.name, Any)
    if parameter.kind is parameter.VAR_POSITIONAL:
        return types.GenericAlias(list, type_)
    if parameter.kind is parameter.VAR_KEYWORD:
        return types.GenericAlias(dict, (str, type_))
    return type_


def _default(parameter: inspect.Parameter) -> tuple[Any, ...]:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return (msgspec.field(default_factory=list),)
    if parameter.kind is parameter.VAR_KEYWORD:
        return (msgspec.field(default_factory=dict),)
    if parameter.default is parameter.empty:
        return ()
    return (msgspec.field(default_factory=partial(copy.deepcopy, parameter.default)),)


def annotation_names(function: Callable[..., Any]) -> set[str]:
    """The names in a function's textual annotations that neither its module nor Python itself knows."""
    names: set[str] = set()
    for annotation in getattr(function, "__annotations__", {}).values():
        if isinstance(annotation, str):
            try:
                names |= set(compile(annotation, "<annotation>", "eval").co_names)
            except SyntaxError:
                continue
    known = getattr(function, "__globals__", {})
    return {name for name in names if name not in known and not hasattr(builtins, name)}


@cache
def _native() -> Callable[[bytes, bool], str | None]:
    # The engine is loaded no sooner than it is needed.
    trouble: Callable[[bytes, bool], str | None] = _engine.load().msgpack_trouble
    return trouble


def _unencodable(error: Exception) -> str:
    return _TOO_DEEP if isinstance(error, RecursionError) else _lower(str(error))


def _lower(words: str) -> str:
    return words[:1].lower() + words[1:]
