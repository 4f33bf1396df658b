"""Images per second of the training step on several devices: python -m benchmarks.scaling --devices 1 2 4 8 ...

Every device gets the same number of images. "efficiency" is images per second and device, relative to one device (or
the first number given). On a CPU the devices are forced ones that share its cores: there the table says that the step
runs on so many devices, and what splitting it costs, not what a real device would add.
"""

import argparse

import jax

from benchmarks import networks
from benchmarks.table import Table, parser
from benchmarks.timing import median_seconds
from benchmarks.train_step import RepeatedStep, add_arguments, compile_step
from ovenet_jax.devices import parallel


def main() -> None:
    arguments, devices = parse()
    height, width = arguments.crop
    print(f"{arguments.network}, HRNet-W{arguments.width}, {arguments.batch} x {height} x {width} per device, "
          f"{arguments.precision}, on {devices[0].device_kind}")  # fmt: skip
    columns = {
        "devices": "7d",
        "step [ms]": "11.1f",
        "images/s": "10.2f",
        "efficiency": "12.1%",
        "compile [s]": "13.1f",
    }
    table = Table(columns, arguments.json, device=devices[0].device_kind, arguments=vars(arguments))
    network = networks.create_network(arguments)
    first = None
    for number in arguments.devices:
        mesh = parallel.create_mesh(devices=devices[:number])
        program = compile_step(network, arguments.precision, mesh, arguments)
        seconds = median_seconds(RepeatedStep(program, mesh, arguments), arguments.repeats)
        first = first or seconds
        table.row(number, 1000 * seconds, number * arguments.batch / seconds, first / seconds, program.seconds)


def parse() -> tuple[argparse.Namespace, list[jax.Device]]:
    """The arguments, and all devices, of which a CPU has as many as are asked for."""
    arguments = parser("scaling", "Images per second of the training step on several devices.")
    networks.add_arguments(arguments)
    add_arguments(arguments)
    arguments.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of devices")
    given = arguments.parse_args()
    jax.config.update("jax_num_cpu_devices", max(given.devices))
    devices = jax.devices()
    if max(given.devices) > len(devices):
        arguments.error(f"--devices: there are only {len(devices)}")
    return given, devices


if __name__ == "__main__":
    main()
