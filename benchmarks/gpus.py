"""GPUs as XLA wants them described, from the facts in ovenet_jax/devices/gpus.json."""

from typing import NamedTuple

from ovenet_jax import plan


class GPU(NamedTuple):
    """Facts of a data sheet or a manufacturer's white paper.

    bandwidth [bytes/s] of the memory; matrix: FLOP/s of dense products of bfloat16 (Volta: float16) numbers, summed in
    float32; float32: FLOP/s of ordinary cores; link [bytes/s] to the other GPUs of a host, one way.
    """

    name: str
    capability: list[int]
    cores: int  # streaming multiprocessors
    clock: float  # [GHz]
    memory: int  # [bytes]
    cache: int  # of level 2 [bytes]
    shared_memory: int  # per core [bytes]
    threads: int  # per core
    bandwidth: float
    matrix: float
    float32: float
    link: float

    def description(self) -> str:
        """As XLA reads it, a text proto of its GpuTargetConfig."""
        major, minor = self.capability
        extension = "feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
        return f"""
            gpu_device_info {{
              cuda_compute_capability {{ major: {major} minor: {minor} {extension} }}
              core_count: {self.cores}
              fpus_per_core: {128 if self.capability >= [8, 6] else 64}
              clock_rate_ghz: {self.clock}
              memory_bandwidth: {int(self.bandwidth)}
              device_memory_size: {self.memory}
              l2_cache_size: {self.cache}
              shared_memory_per_core: {self.shared_memory}
              shared_memory_per_block: 49152
              shared_memory_per_block_optin: {self.shared_memory - 1024 if major >= 8 else self.shared_memory}
              threads_per_core_limit: {self.threads}
              threads_per_block_limit: 1024
              threads_per_warp: 32
              registers_per_core_limit: 65536
              registers_per_block_limit: 65536
              block_dim_limit_x: 2147483647
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
              thread_dim_limit_x: 1024
              thread_dim_limit_y: 1024
              thread_dim_limit_z: 64
              device_address_bits: 64
              device_vendor: "NVIDIA Corporation"
              name: "{self.name}"
              driver_version: "13.0.0"
              runtime_version: "13.0.0"
              compile_time_toolkit_version: "13.0.0"
              dnn_version: "9.12.0"
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 12 patch: 0 }}
            device_description_str: "{self.name}"
        """


GPUS = {key: GPU(**{fact: facts[fact] for fact in GPU._fields}) for key, facts in plan.GPUS.items()}
