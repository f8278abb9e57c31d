"""Where a JSON value ends in a text that is still growing. Looks at each character once."""

_DEEPEST = 64
_PLAIN = frozenset('{}[]:,"+-.0123456789 \t\r\n' + "truefalsenull" + "E")  # outside of strings


class JsonExtent:
    """`start`: where in the text the object or list begins."""

    def __init__(self, start: int) -> None:
        self._at = start
        self._open: list[str] = []
        self._in_string = False
        self._escaped = False

    def find(self, text: str) -> int | None:
        """The index after the value's end; None if it is still open; -1 if this can be no JSON."""
        while self._at < len(text):
            character = text[self._at]
            self._at += 1
            if self._in_string:
                self._step_in_string(character)
            elif not self._step(character):
                return -1
            elif not self._open:
                return self._at
        return None

    def _step_in_string(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False

    def _step(self, character: str) -> bool:
        """Whether JSON may go on so."""
        if character not in _PLAIN:
            return False
        if character == '"':
            self._in_string = True
        elif character in "{[":
            self._open.append("}" if character == "{" else "]")
        elif character in "}]":
            return self._open.pop() == character
        return len(self._open) <= _DEEPEST
