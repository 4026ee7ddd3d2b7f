"""Options by the names of the flags, made from the core's own lists of fields."""

import inspect
from functools import lru_cache

from . import _core

Error = _core.Error


class Alternative:
    """One of a list in the core, its options by keyword. Unknown and wrong ones are errors here and now."""

    kind = name = ""

    def __init__(self, **options):
        self.options = options
        self.assignments = assignments(options)
        _core.check_alternative(self.kind, self.name, self.assignments)

    def __repr__(self):
        given = ", ".join(f"{key}={value!r}" for key, value in self.options.items())
        return f"{type(self).__name__}({given})"

    def __eq__(self, other):
        return type(self) is type(other) and self.assignments == other.assignments

    def __hash__(self):
        return hash((self.name, tuple(sorted(self.assignments.items()))))


def as_text(key, value):
    """The text that a flag would be given."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, str)):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)) and all(type(item) is int for item in value):
        return ",".join(str(item) for item in value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return as_text(key, value.item())  # a number of torch's or numpy's
    raise Error(f"{key} is of type {type(value).__name__}; expected a number, a name or whole numbers")


def assignments(given):
    """{name: value} as {key: text}; a value such as Anderson(memory=5) brings its own options."""
    texts = {}

    def put(key, text):
        if key in texts:
            raise Error(f"{key} is given twice, by itself and in an alternative; expected one of the two")
        texts[key] = text

    for key, value in given.items():
        if isinstance(value, type) and issubclass(value, Alternative):
            value = value()
        if not isinstance(value, Alternative):
            put(key, as_text(key, value))
            continue
        if value.kind != key.rpartition("_")[2]:
            raise Error(f"{key} = {value!r}, which is a {value.kind}; expected a {key.rpartition('_')[2]}")
        put(key, value.name)
        for own, text in value.assignments.items():
            put(f"{key}_{own}", text)
    return texts


@lru_cache(maxsize=256)
def _parsed(texts):
    return _core.EquilibriumOptions(dict(texts))


def equilibrium_options(given):
    """The core's options of an equilibrium, parsed once for each set of values."""
    return _parsed(tuple(sorted(assignments(given).items())))


_TYPES = {"bool": bool, "int": int, "float": float, "text": str, "choice": str, "list": tuple}


def default_of(info):
    """An option's default as a value of Python's."""
    if info.type == "bool":
        return info.value == "true"
    if info.type == "list":
        return tuple(int(item) for item in info.value.split(",") if item)
    return _TYPES[info.type](info.value)


def signature_of(infos):
    """Keyword arguments for these options, those of alternatives left to the alternatives."""
    return inspect.Signature([
        inspect.Parameter(info.key, inspect.Parameter.KEYWORD_ONLY, default=default_of(info),
                          annotation=_TYPES[info.type])
        for info in infos if not info.owner
    ])


def describe_options(infos):
    """A line for each option: its help, choices, range and default."""
    return "\n".join("    {}: {} [{}]".format(info.key, info.help.replace("\n", "\n        "), info.value)
                     for info in infos)


def class_name(name):
    """peaceman-rachford -> PeacemanRachford"""
    return "".join(part[0].upper() + part[1:] for part in name.split("-"))


def make_alternatives(kind, base, abouts, module):
    """{name of the class: class} for every alternative of a kind."""
    made = {}
    for name, infos in _core.alternatives(kind):
        doc = abouts.get(name, f"The {kind} '{name}'.")
        if infos:
            doc += "\n\nOptions:\n" + describe_options(infos)
        own = {"kind": kind, "name": name, "__doc__": doc, "__module__": module,
               "__signature__": signature_of(infos)}
        made[class_name(name)] = type(base)(class_name(name), (base,), own)
    return made
