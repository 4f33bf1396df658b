import pytest

from ovenet_jax.errors import EXIT_INTERRUPTED, UserError, listed, run


def ends(error: BaseException):
    raise error


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (lambda: ends(UserError("no such folder.")), 2, "Error: no such folder.\n"),
        (lambda: ends(UserError("saved; go on.", EXIT_INTERRUPTED)), 75, "Error: saved; go on.\n"),
        (lambda: ends(KeyboardInterrupt()), 75, "Error: interrupted; the same command starts again"),
    ],
    ids=["done", "incomplete", "mistake", "saved", "interrupted"],
)
def test_a_command_ends_with_its_code_and_one_sentence(command, code, said, capsys):
    assert run(command) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(said)
    assert told.err.count("\n") == bool(said)


def test_what_is_no_mistake_of_the_user_keeps_its_stack_trace():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


def test_of_many_faults_the_first_are_named_and_the_rest_counted():
    assert listed(["a", "b"]) == "\n  a\n  b"
    assert listed([str(i) for i in range(23)]).endswith("\n  19\n  and 3 more")
