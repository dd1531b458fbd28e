"""The text of compiled programs, read: loops, kernels, what is sent and what is moved, against figures by hand."""

import pytest

from lmscale.lm.aot import hlo, hlo_costs

TEXT = """HloModule jit_step, is_scheduled=true, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%sliced (p0: f32[12,8,4], p1: s32[]) -> f32[8,4] {
  %p0 = f32[12,8,4]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %one = f32[1,8,4]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,8,4}
  ROOT %flat = f32[8,4]{1,0} bitcast(%one)
}

%condition (state: (s32[], f32[8,4])) -> pred[] {
  %state = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %turns = s32[] constant(12)
  ROOT %less = pred[] compare(%i, %turns), direction=LT
}

%body (state.1: (s32[], f32[8,4], f32[12,8,4])) -> (s32[], f32[8,4], f32[12,8,4]) {
  %state.1 = (s32[], f32[8,4]{1,0}, f32[12,8,4]{2,1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %x.1 = f32[8,4]{1,0} get-tuple-element(%state.1), index=1
  %stack = f32[12,8,4]{2,1,0} get-tuple-element(%state.1), index=2
  %layer = f32[8,4]{1,0} fusion(%stack, %i.1), kind=kLoop, calls=%sliced
  %gathered = f32[64,4]{1,0} all-gather(%layer), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  %attention = (f32[8,4]{1,0}, u8[0]{0}) custom-call(%x.1, %layer), custom_call_target="__cudnn$fmhaSoftmax"
  %out = f32[8,4]{1,0} get-tuple-element(%attention), index=0
  ROOT %next = (s32[], f32[8,4]{1,0}, f32[12,8,4]{2,1,0}) tuple(%i.1, %out, %stack)
}

%async (a: f32[16]) -> f32[2] {
  %a = f32[16]{0} parameter(0)
  ROOT %scattered = f32[2]{0} reduce-scatter(%a), replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
}

ENTRY %main (w: f32[12,8,4], x: f32[8,4]) -> f32[8,4] {
  %w = f32[12,8,4]{2,1,0} parameter(0)
  %x.2 = f32[8,4]{1,0} parameter(1)
  %start = s32[] constant(0)
  %init = (s32[], f32[8,4]{1,0}, /*index=2*/f32[12,8,4]{2,1,0}) tuple(%start, %x.2, %w)
  %loop = (s32[], f32[8,4]{1,0}, f32[12,8,4]{2,1,0}) while(%init), condition=%condition, body=%body, NOTED
  %y.2 = f32[8,4]{1,0:T(8,128)S(1)} get-tuple-element(%loop), index=1
  %reduced = f32[8,4]{1,0} all-reduce-start(%y.2), replica_groups=[2,4]<=[8], to_apply=%add
  %done = f32[8,4]{1,0} all-reduce-done(%reduced)
  %vector = f32[16]{0} broadcast(%start), dimensions={}
  %pending = ((f32[16]{0}), f32[2]{0}) async-start(%vector), calls=%async
  %scattered.1 = f32[2]{0} async-done(%pending), calls=%async
  %sent = f32[8,4]{1,0} collective-permute(%done), source_target_pairs={{0,4},{4,0}}
  ROOT %result = f32[8,4]{1,0} multiply(%sent, %sent)
}
""".replace("NOTED", NOTED := 'backend_config={"known_trip_count":{"n":"12"}}')
ARRAY = 4 * 8 * 4
"""Bytes of f32[8,4]."""


def test_loops_are_counted_by_their_turns() -> None:
    program = hlo.parse(TEXT)
    assert program.entry == "main" and set(program.computations) == {
        "add", "sliced", "condition", "body", "async", "main",
    }  # fmt: skip
    times = {one.name: times for _, one, times in program.executed()}
    assert times["gathered"] == 12 and times["result"] == 1 and "sum" not in times and "one" not in times
    unnoted = hlo.parse(TEXT.replace(f", {NOTED}", ""))
    assert {one.name: times for _, one, times in unnoted.executed()}["gathered"] == 12  # by the loop's condition


def test_an_instruction_of_several_lines() -> None:
    """A TPU's kernel has attributes in lines of their own, one of which begins with a brace: no instruction is lost."""
    attributes = 'frontend_attributes={kernel_metadata={\n"block": "{}"\n}}, metadata={op_name="attend"}'
    target = 'custom_call_target="__cudnn$fmhaSoftmax"'
    text = TEXT.replace(target, f"{attributes}, {target}")
    text = text.replace("\n}\n\n%async", '\n}, execution_thread="main"\n\n%async')
    one, several = hlo.parse(TEXT), hlo.parse(text)
    assert [list(two.instructions) for two in several.computations.values()] == [
        list(two.instructions) for two in one.computations.values()
    ]
    assert hlo_costs.kernels(several) == hlo_costs.kernels(one) == {"__cudnn$fmhaSoftmax": 12}
    assert hlo_costs.traffic_bytes(several) == hlo_costs.traffic_bytes(one)


def test_groups_that_are_axes_of_a_mesh() -> None:
    """On a mesh of 2 x 4 devices: along the second axis the first four, along the first every fourth, or all."""
    mesh = "replica_groups=mesh['axis_0'=2,'axis_1'=4] "
    for axes, group in (("'axis_1'", [0, 1, 2, 3]), ("'axis_0'", [0, 4]), ("'axis_0','axis_1'", list(range(8)))):
        assert hlo_costs._first_group(f"channel_id=1, {mesh}{{{axes}}}, to_apply=%add", 8) == group
    for axes, group in (("'whole':(1)2", [0, 4]), ("'whole':(2)2", [0, 2]), ("'whole':(2)4", [0, 1, 2, 3])):
        assert hlo_costs._first_group(f"replica_groups=mesh['whole'=8] {{{axes}}}", 8) == group
    listed = TEXT.replace("replica_groups=[2,4]<=[8]", f"{mesh}{{'axis_1'}}")
    assert hlo_costs.collectives(hlo.parse(listed), 8, 8) == hlo_costs.collectives(hlo.parse(TEXT), 8, 8)


def test_operands_with_and_without_their_types() -> None:
    bare = hlo.parse(TEXT.replace("%", ""))
    typed = hlo.parse(TEXT.replace("multiply(%sent, %sent)", "multiply(f32[8,4]{1,0} %sent, f32[8,4]{1,0} %sent)"))
    for program in (hlo.parse(TEXT), bare, typed):
        assert program.computations["main"].instructions["result"].operands == ["sent", "sent"]
        assert hlo_costs.collectives(program, 8, 8) == hlo_costs.collectives(hlo.parse(TEXT), 8, 8)


def test_what_a_device_sends() -> None:
    sent = hlo_costs.collectives(hlo.parse(TEXT), devices=8, linked=8)
    assert sent == {
        "all-gather": {"count": 12, "bytes": 12 * 7 * ARRAY, "network_bytes": 0},
        "all-reduce": {"count": 1, "bytes": round(2 * ARRAY * 3 / 4), "network_bytes": 0},
        "collective-permute": {"count": 1, "bytes": ARRAY, "network_bytes": 0},
        "reduce-scatter": {"count": 1, "bytes": round(64 * 7 / 8), "network_bytes": 0},
    }


def test_a_fusion_that_scatters_a_sum() -> None:
    """As a TPU's compiler writes it: half of what the all-reduce in it would send."""
    fusion = """
%all-reduce-scatter.1 (input: f32[8,4]) -> f32[1,4] {
  %input = f32[8,4]{1,0} parameter(0)
  %whole = f32[8,4]{1,0} all-reduce(%input), channel_id=2, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %device = u32[] partition-id()
  %none = u32[] constant(0)
  ROOT %part = f32[1,4]{1,0} dynamic-slice(%whole, %device, %none), dynamic_slice_sizes={1,4}
}

ENTRY %main"""
    text = TEXT.replace("\nENTRY %main", fusion).replace(
        "  ROOT %result",
        "  %scattered.2 = f32[1,4]{1,0} fusion(%sent), kind=kCustom, calls=%all-reduce-scatter.1\n  ROOT %result",
    )
    plain, sent = (hlo_costs.collectives(hlo.parse(one), devices=8, linked=8) for one in (TEXT, text))
    assert sent["all-reduce"] == plain["all-reduce"]
    assert sent["reduce-scatter"]["bytes"] - plain["reduce-scatter"]["bytes"] == round(ARRAY * 7 / 8)
    assert sent["reduce-scatter"]["count"] == 2


def test_what_leaves_the_linked_devices() -> None:
    """Two hosts of four: a gather brings the other host's share once, and groups of one host send nothing out."""
    sent = hlo_costs.collectives(hlo.parse(TEXT), devices=8, linked=4)
    assert sent["all-gather"]["network_bytes"] == 12 * ARRAY
    assert sent["all-reduce"]["network_bytes"] == 0
    assert sent["collective-permute"]["network_bytes"] == ARRAY
    assert sent["reduce-scatter"]["network_bytes"] == round(64 / 4 / 2)
    transposed = TEXT.replace("[2,4]<=[8]", "[4,2]<=[2,4]T(1,0)")  # pairs of one device of each host
    crossing = hlo_costs.collectives(hlo.parse(transposed), devices=8, linked=4)["all-reduce"]
    assert crossing["bytes"] == crossing["network_bytes"] == ARRAY


def test_kernels_and_attention() -> None:
    calls = hlo_costs.kernels(hlo.parse(TEXT))
    assert calls == {"__cudnn$fmhaSoftmax": 12}
    assert hlo_costs.attention_kernel(calls, training=False) == "cudnn"
    assert hlo_costs.attention_kernel(calls, training=True) == "cudnn forward, plain backward"
    both = {**calls, "__cudnn$fmhaSoftmaxBackward": 12}
    assert hlo_costs.attention_kernel(both, training=True) == "cudnn"
    assert hlo_costs.attention_kernel({"__cublas$gemm": 3}, training=True) == "plain"
    splash = TEXT.replace('"__cudnn$fmhaSoftmax"', '"tpu_custom_call", metadata={op_name="jit(f)/splash_mha_fwd"}')
    assert hlo_costs.kernels(hlo.parse(splash)) == {"tpu_custom_call:splash_mha_fwd": 12}


def test_what_is_moved_in_memory() -> None:
    """A turn reads one layer of the stack; what lies in vector memory, and what is sent, does not count."""
    in_a_turn = (ARRAY + 4 + ARRAY) + (ARRAY + ARRAY + ARRAY)  # the slice and the kernel
    rest = (4 + 64) + 3 * ARRAY  # the broadcast and the product
    assert hlo_costs.traffic_bytes(hlo.parse(TEXT)) == 12 * in_a_turn + rest


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("f32[8,4]{1,0}", 128),
        ("bf16[3]", 6),
        ("(s32[], f32[2]{0}, /*index=2*/pred[5]{0})", 17),
        ("s4[8]{0}", 4),
        ("f8e4m3fn[7]{0}", 7),
        ("token[]", 0),
        ("f32[]", 4),
    ],
)
def test_bytes_of_a_type(text: str, size: int) -> None:
    assert hlo.array_bytes(text) == size


def test_a_copy_into_vector_memory_is_one_read() -> None:
    text = """HloModule copy
ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  %start = (f32[8,4]{1,0:S(1)}, f32[8,4]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %there = f32[8,4]{1,0:S(1)} copy-done(%start)
  %back = (f32[8,4]{1,0}, f32[8,4]{1,0:S(1)}, u32[]{:S(2)}) copy-start(%there)
  ROOT %done = f32[8,4]{1,0} copy-done(%back)
}
"""
    assert hlo_costs.traffic_bytes(hlo.parse(text)) == 2 * ARRAY


def test_a_text_without_a_program() -> None:
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule empty\n")
