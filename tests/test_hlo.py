"""What is read of a program that was compiled for a GPU."""

from benchmarks import hlo

# A scores' product in a loop of four, a convolution and its kernel's gradient, a sum that reads half of a vector, and
# what launches nothing.
PROGRAM = """
HloModule jit_train_step

%fused_reduce.1 (param_0.1: f32[100], param_1.2: bf16[2,4,4,8]) -> f32[8] {
  %param_0.1 = f32[100]{0} parameter(0)
  %convert.1 = bf16[100]{0} convert(%param_0.1)
  %slice.1 = bf16[50]{0} slice(%convert.1), slice={[0:50]}
  %param_1.2 = bf16[2,4,4,8]{3,2,1,0} parameter(1)
  ROOT %reduce.1 = f32[8]{0} reduce(%param_1.2, %slice.1), dimensions={0,1,2}, to_apply=%add.1
}

%body.1 (tuple.2: (s32[], f32[2,3])) -> (s32[], f32[2,3]) {
  %tuple.2 = (s32[], f32[2,3]{1,0}) parameter(0)
  %get-tuple-element.3 = f32[2,3]{1,0} get-tuple-element(%tuple.2), index=1
  %cublas.1 = (f32[2,2]{1,0}, s8[64]{0}) custom-call(%get-tuple-element.3, %tuple.2#1), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  ROOT %tuple.4 = (s32[], f32[2,3]{1,0}) tuple(%get-tuple-element.3, %get-tuple-element.3)
}

ENTRY %main.1 (a: bf16[2,4,4,3], b: bf16[8,3,3,3], c: f32[100]) -> (f32[8]) {
  %a = bf16[2,4,4,3]{3,2,1,0} parameter(0)
  %b = bf16[8,3,3,3]{3,2,1,0} parameter(1)
  %c = f32[100]{0} parameter(2)
  %cudnn-conv.1 = (bf16[2,4,4,8]{3,2,1,0}, u8[0]{0}) custom-call(%a, %b), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", metadata={op_name="jit(train_step)/jvp(stage1)/conv_general_dilated"}
  %get-tuple-element.1 = bf16[2,4,4,8]{3,2,1,0} get-tuple-element(%cudnn-conv.1), index=0
  %cudnn-conv.2 = (bf16[8,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%a, %get-tuple-element.1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %sum.1 = f32[8]{0} fusion(%c, %get-tuple-element.1), kind=kInput, calls=%fused_reduce.1, metadata={op_name="jit(train_step)/jvp(stage1)/reduce_sum"}
  %all-reduce-start.1 = f32[8]{0} all-reduce-start(%sum.1), replica_groups={{0,1}}, to_apply=%add.1
  %all-reduce-done.1 = f32[8]{0} all-reduce-done(%all-reduce-start.1)
  %while.1 = (s32[], f32[2,3]{1,0}) while(%tuple.9), condition=%region.1, body=%body.1, backend_config={"known_trip_count":{"n":"4"}}
  ROOT %tuple.8 = (f32[8]{0}) tuple(%all-reduce-done.1)
}
"""  # noqa: E501


def test_what_is_launched_and_what_it_moves_and_computes():
    found = {kernel.name: kernel for kernel in hlo.kernels(PROGRAM)}
    assert {name: (k.kind, k.times) for name, k in found.items()} == {
        "cudnn-conv.1": ("convolution", 1),
        "cudnn-conv.2": ("convolution", 1),
        "sum.1": ("reduction", 1),
        "all-reduce-start.1": ("all-reduce", 1),
        "cublas.1": ("product", 4),
    }
    image, kernel, result = 2 * 4 * 4 * 3 * 2, 8 * 3 * 3 * 3 * 2, 2 * 4 * 4 * 8 * 2  # bytes
    forward, to_kernel = found["cudnn-conv.1"], found["cudnn-conv.2"]
    assert (forward.read, forward.written) == (image + kernel, result)
    assert (to_kernel.read, to_kernel.written) == (image + result, kernel)
    assert forward.flop == to_kernel.flop == 2 * (2 * 4 * 4) * 8 * (3 * 3 * 3)
    assert forward.detail == "Forward NHWC,OHWI->NHWC"
    assert forward.types == "bf16,bf16->bf16"
    assert found["sum.1"].read == 50 * 4 + result  # half of a vector
    assert found["all-reduce-start.1"].bytes == 8 * 4
    assert found["cublas.1"].flop == 2 * (2 * 2) * 3
    assert found["cublas.1"].types == "f32,f32->f32 TF32"
    assert found["all-reduce-start.1"].detail == "beside others"


def test_factors_that_a_gpu_must_not_round():
    program = PROGRAM.replace("bf16", "f32")
    exact = program.replace("custom_call_target", "operand_precision={highest,highest}, custom_call_target")
    for text, types in ((program, "f32,f32->f32 TF32"), (exact, "f32,f32->f32")):
        assert {k.types for k in hlo.kernels(text) if k.kind in ("convolution", "product")} == {types}


def test_a_sort_takes_a_launch_for_each_distance_beyond_a_tile():
    """2 ** 14 numbers with two others each, in tiles of 2 ** 12: within tiles, then steps of 1 and of 2 distances, each
    with what is within tiles."""
    program = """
%fused_sort (a: s32[16384], b: f32[16384], c: s32[16384]) -> (s32[16384], f32[16384], s32[16384]) {
  %a = s32[16384]{0} parameter(0)
  %b = f32[16384]{0} parameter(1)
  %c = s32[16384]{0} parameter(2)
  ROOT %sort = (s32[16384]{0}, f32[16384]{0}, s32[16384]{0}) sort(%a, %b, %c), dimensions={0}, to_apply=%less
}

ENTRY %main (x: s32[16384], y: f32[16384]) -> (s32[16384], f32[16384], s32[16384]) {
  %x = s32[16384]{0} parameter(0)
  %y = f32[16384]{0} parameter(1)
  ROOT %sorted = (s32[16384]{0}, f32[16384]{0}, s32[16384]{0}) fusion(%x, %y, %x), kind=kLoop, calls=%fused_sort
}
"""
    (kernel,) = hlo.kernels(program)
    assert (kernel.kind, kernel.times) == ("sort", 1 + (1 + 1) + (2 + 1))
    assert kernel.read == kernel.written == 3 * 4 * 16384
