"""Every error: its code, its built-in base, its advice, and that it survives pickling."""

from __future__ import annotations

import copy
import pickle
import traceback

import graft
import pytest
from graft import _errors

BASES = {
    "NotLeader": ("NOT_LEADER", ConnectionError, True),
    "NoLeader": ("NO_LEADER", ConnectionError, True),
    "NoQuorum": ("NO_QUORUM", ConnectionError, True),
    "Timeout": ("TIMEOUT", TimeoutError, True),
    "UnknownOutcome": ("UNKNOWN_OUTCOME", TimeoutError, False),
    "SessionExpired": ("SESSION_EXPIRED", RuntimeError, False),
    "Insecure": ("INSECURE", ValueError, False),
    "InvalidCall": ("INVALID_CALL", TypeError, False),
    "ApplyError": ("APPLY", RuntimeError, False),
    "Busy": ("BUSY", ConnectionError, True),
    "TooLarge": ("TOO_LARGE", ValueError, False),
    "MembershipRefused": ("MEMBERSHIP_REFUSED", RuntimeError, False),
    "ConfigError": ("CONFIG", ValueError, False),
    "AddressInUse": ("ADDRESS_IN_USE", OSError, False),
    "StorageError": ("STORAGE", OSError, False),
    "Corruption": ("CORRUPTION", OSError, False),
    "ClusterMismatch": ("CLUSTER_MISMATCH", ValueError, False),
    "IdentityMismatch": ("IDENTITY_MISMATCH", ValueError, False),
    "TlsError": ("TLS", ConnectionError, False),
    "Halted": ("HALTED", RuntimeError, False),
    "Removed": ("REMOVED", RuntimeError, False),
    "Stopped": ("STOPPED", RuntimeError, False),
    "Diverged": ("DIVERGED", RuntimeError, False),
}
ALL = [getattr(graft, name) for name in BASES]


def test_the_table_is_complete():
    assert set(_errors._BY_CODE.values()) == {*ALL, graft.GraftError}


@pytest.mark.parametrize("name", BASES)
def test_code_base_and_retryable(name):
    code, base, retryable = BASES[name]
    kind = getattr(graft, name)
    assert (kind.code, kind.retryable) == (code, retryable)
    assert issubclass(kind, graft.GraftError)
    assert issubclass(kind, base)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_fix_is_one_line_and_among_the_notes(kind):
    error = kind("what happened")
    assert error.fix
    assert "\n" not in error.fix
    assert error.fix in error.__notes__
    assert error.fix in "".join(traceback.format_exception(error))
    assert "what happened" in str(error)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("remake", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_survives_pickling(kind, remake):
    error = kind("what happened", leader="n2", reachable=1, needed=2, file="a.log", offset=7, type_name="ValueError")
    error.add_note("said later")
    again = remake(error)
    assert type(again) is kind
    assert (str(again), again.message, again.details) == (str(error), error.message, error.details)
    assert again.__notes__ == error.__notes__
    assert again.fix == error.fix


def test_details_are_attributes():
    assert graft.NotLeader("", leader="n2").leader == "n2"
    quorum = graft.NoQuorum("", reachable=1, needed=2)
    assert (quorum.reachable, quorum.needed) == (1, 2)
    corruption = graft.Corruption("", file="wal/1", offset=99)
    assert (corruption.file, corruption.offset) == ("wal/1", 99)
    assert graft.NotLeader().leader is None


def test_an_error_without_a_message_explains_itself():
    assert str(graft.NoLeader()) == "Nobody leads the cluster at this moment. The call is not applied."


def test_apply_error_shows_the_remote_traceback():
    error = graft.ApplyError(
        "no funds", type_name="ValueError", index=7, traceback="Traceback ...\nValueError: no funds\n"
    )
    assert (error.type_name, error.message, error.index) == ("ValueError", "no funds", 7)
    assert str(error) == "ValueError: no funds"
    assert any("Traceback ...\nValueError: no funds" in note for note in error.__notes__)
    assert pickle.loads(pickle.dumps(error)).__notes__ == error.__notes__


def test_native_makes_the_error_of_the_code():
    error = _errors._native("NO_QUORUM", "1 of 3", {"reachable": 1, "needed": 2, "fix": "start n2"})
    assert isinstance(error, graft.NoQuorum)
    assert (str(error), error.needed, error.fix) == ("1 of 3", 2, "start n2")
    assert "start n2" in error.__notes__
    assert graft.NoQuorum.fix not in error.__notes__


def test_native_keeps_a_code_it_does_not_know():
    error = _errors._native("FROM_THE_FUTURE", "well", {"x": 1})
    assert type(error) is graft.GraftError
    assert str(error) == "FROM_THE_FUTURE: well"
    assert error.details == {"x": 1}


def test_damage_is_not_answered_with_an_empty_directory():
    assert "never start this id with an empty directory while another member is down" in graft.Corruption().fix


def test_halt_is_not_an_error_of_graft():
    assert not issubclass(graft.Halt, graft.GraftError)
