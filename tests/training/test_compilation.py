import jax
import jax.numpy as jnp

from ovenet_jax.training.compilation import compile_step, counting


def test_programs_are_counted_once_each(capsys):
    def step(state, image):
        return state + image.sum(), {"loss": image.mean()}

    with counting() as compilations:
        jitted = jax.jit(step)
        arguments = jnp.float32(1), jnp.ones((2, 3))
        before = compilations.programs
        compiled = compile_step(jitted, *arguments)
        assert compilations.programs == before + 1
        for _ in range(2):
            state, _ = compiled(*arguments)
        assert compilations.programs == before + 1
    assert state == 7
    assert compiled.out_info[1].keys() == {"loss"}
    assert capsys.readouterr().out == "Compiling the training step for 8 x cpu ...\nCompiled in 0 s.\n"
    assert compilations.seconds > 0
    jax.jit(lambda x: x * 5)(2.0)
    assert compilations.programs == before + 1  # the counting is over
