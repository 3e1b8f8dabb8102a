"""The exception tree is the one that its module draws."""

import inspect
import re

from qlearn import errors


def test_the_drawn_tree_is_the_real_one():
    drawn = set(re.findall(r"\b([A-Z]\w+(?:Error|Warning))\b", errors.__doc__))
    real = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert real <= drawn
    for name in real:
        value = getattr(errors, name)
        assert value.__doc__
        assert issubclass(value, errors.QLearnError | Warning)


def test_builtin_bases_let_users_catch_what_they_expect():
    assert issubclass(errors.NumbersError, ValueError)
    assert issubclass(errors.CalibrationError, ValueError)
    assert issubclass(errors.MissingDataError, FileNotFoundError)
    assert issubclass(errors.UnknownCalibratorError, LookupError)
