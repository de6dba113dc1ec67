"""A fork goes on from its parent: with the same future, or with another one from the step of a change on."""

from dataclasses import replace

import pytest
import torch

from geodream_lib.guidance import SDSGuidance, lora_state
from geodream_lib.schedules import constant


@pytest.mark.needs_golden("vsd")
def test_a_fork_without_changes_has_the_same_future_and_neither_sees_the_other(make, settings):
    whole, parent = make(), make()
    whole.run()
    parent.run(settings.checkpoint_steps)
    fork = parent.fork()
    fork.run()
    assert parent.step_number == settings.checkpoint_steps and fork.history == whole.history
    parent.run()
    for refinement in (parent, fork):
        for name, tensor in refinement.scene.state_dict().items():
            assert torch.equal(tensor, whole.scene.state_dict()[name]), name
        for name, tensor in lora_state(refinement.guidance.lora).items():
            assert torch.equal(tensor, lora_state(whole.guidance.lora)[name]), name
    shared, own = fork.guidance.lora.unet.conv_in.weight, parent.guidance.lora.unet.conv_in.weight
    assert shared is own, "frozen weights are not copied"


@pytest.mark.needs_golden("vsd")
def test_a_fork_goes_its_own_way_from_the_step_of_the_change(make, settings):
    parent, half = make(), settings.checkpoint_steps
    parent.run(half)
    schedules = parent.settings.schedules | {"volume": constant(0.0)}
    still = parent.fork(schedules=schedules)
    start = still.scene.field.volume.detach().clone()
    still.run()
    parent.run()
    # AdamW moves by its rate alone: at zero nothing moves, whatever the gradient.
    assert torch.equal(still.scene.field.volume, start) and not torch.equal(parent.scene.field.volume, start)
    assert still.history[:half] == parent.history[:half]
    assert still.history[half]["loss"] == parent.history[half]["loss"], "the same cameras and the same noise"


@pytest.mark.needs_golden("vsd")
def test_a_fork_may_change_its_guidance_in_both_directions(make):
    parent = make()
    parent.run(1)
    guidance = parent.guidance
    plain = parent.fork(guidance=SDSGuidance(guidance.diffusion, guidance.prompts, scale=7.5))
    plain.run(1)
    assert "lora" in parent.history[-1] and "lora" not in plain.history[-1]
    back = plain.fork(guidance=guidance)
    back.run(1)
    assert "lora" in back.history[-1] and len(back.history) == 3
    stronger = parent.fork(guidance=replace(guidance, scale=50.0))
    stronger.run(1)
    parent.run(1)
    assert stronger.history[-1]["guidance"] > parent.history[-1]["guidance"]
