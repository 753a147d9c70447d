"""Claims of the same posts that no study of this pipeline can test, each with the reason."""

from __future__ import annotations

from actspace import commands
from actspace.claims.entry import Beyond
from actspace.claims.sources import (
    ANSWERS,
    IDEAS,
    MEMORY,
    PLATEAU_IDEAS,
    PLATEAUS,
    PLATEAUS_1,
    PLATEAUS_SAE,
    REGIONS,
    REPLY,
    SHARKEY,
    SPLITTING,
    TINY,
    TRUE_FEATURES,
    WEIGHTS,
)

BEYOND = (
    Beyond(
        id="activations_lie_50_apart",
        title="Two activations typically lie 50 apart",
        source=f"{PLATEAUS}, core results",
        sentence="Before the second block of GPT-2 small, two activations are typically a distance of about 50 apart.",
        reason="a length has the unit of one model; the table `activations` gives it for the model of a study, without an interval",
    ),
    Beyond(
        id="error_correction_makes_plateaus",
        title="Plateaus come from error correction",
        source=f"{PLATEAUS_1}, and the comments on it",
        sentence="Networks that compute in superposition suppress small amounts of noise, and plateaus are a sign of it; a commenter "
        "holds that correct behaviour and linear features are enough to explain them.",
        reason="both explanations predict the same curves; telling them apart takes a model whose mechanism is known",
    ),
    Beyond(
        id="boundaries_are_relu_boundaries",
        title="Regions end where many neurons switch",
        source=PLATEAU_IDEAS,
        sentence="The boundaries between regions of like output are ReLU boundaries that lie close together.",
        reason="the neurons inside blocks are not recorded along paths",
    ),
    Beyond(
        id="larger_models_have_crisper_regions",
        title="Regions are crisper in larger models",
        source=f"{PLATEAU_IDEAS}, after {REGIONS}",
        sentence="The output changes more abruptly between regions the larger the model is.",
        reason=f"a study has one model; run one study for each and set them side by side with `{commands.line('compare')}`",
    ),
    Beyond(
        id="activations_lie_in_the_centre_of_plateaus",
        title="Activations lie in the centre of plateaus",
        source=PLATEAU_IDEAS,
        sentence="Real activations are mostly found near the centre of their plateau.",
        reason="an anecdote without a measure: a centre takes the extent of a plateau in all directions",
    ),
    Beyond(
        id="end_to_end_saes_collapse_plateaus",
        title="End-to-end SAEs map a plateau to one point",
        source=f"{PLATEAU_IDEAS}: a question",
        sentence="If it makes no difference where on a plateau an activation lies, an SAE trained on the model's output may "
        "reconstruct all of it as one point.",
        reason="SAEs are trained on reconstruction alone here, not on the model's output",
    ),
    Beyond(
        id="pre_activations_are_unlike_superposition",
        title="Pre-activations are not as superposition predicts",
        source=REPLY,
        sentence="The distributions of an SAE's pre-activations are not what the superposition hypothesis leads one to expect.",
        reason="the source does not say in what; the figure of pre-activations shows them beside those of random vectors",
    ),
    Beyond(
        id="sae_features_are_the_models",
        title="SAE features may be those of the data",
        source=f"{TRUE_FEATURES}; {PLATEAUS_SAE}",
        sentence="Latents of an SAE may be features of the dataset that the model itself does not use.",
        reason="no features of the model are known independently of data; only how sensitive it is to latents is measured",
    ),
    Beyond(
        id="splits_are_composites",
        title="Features that split are composites",
        source=f"{SPLITTING}: a question",
        sentence="The latents into which a latent of a smaller SAE splits are sums of several latents of the smaller one.",
        reason="the table `dictionary_matches` gives what sums leave of split latents, and of a null, without intervals",
    ),
    Beyond(
        id="l1_makes_latents_equal",
        title="Reconstruction and L1 can give equal latents",
        source=SHARKEY,
        sentence="In toy data, an SAE trained on reconstruction and an L1 penalty can end up with latents of the same direction.",
        reason="no SAE is trained on toy data; there the dictionary is the truth",
    ),
    Beyond(
        id="polytopes_outnumber_neurons",
        title="A network has exponentially more polytopes than neurons",
        source=SHARKEY,
        sentence="Described by the linear pieces of its function, a network has exponentially more parts than it has neurons.",
        reason="the linear pieces of the function are not counted",
    ),
    Beyond(
        id="memorization_is_computation_in_superposition",
        title="Memorization is computation in superposition",
        source=MEMORY,
        sentence="Models look up facts in their MLP blocks by computing more conjunctions than there are neurons, from 30 to 100 "
        "features that are active at a time.",
        reason="nothing inside blocks is taken apart, and the number of active latents is a setting of an SAE",
    ),
    Beyond(
        id="parameters_add_up",
        title="Parameter components add up to the weights",
        source=WEIGHTS,
        sentence="A network's weights are a sum of components each of which does its own work, which superposition makes doubtful.",
        reason="activations are studied here, not weights",
    ),
    Beyond(
        id="models_repeat_their_answers",
        title="The same question gets the same answer",
        source=ANSWERS,
        sentence="Asked the same open question again, chat models give the same answer more often than web text would suggest.",
        reason="no text is generated",
    ),
    Beyond(
        id="tiny_stories_are_trigrams",
        title="Models of TinyStories are mostly n-grams",
        source=TINY,
        sentence="A model of one layer does as well on TinyStories as deeper, narrower ones, so that simple statistics may explain them.",
        reason="no models are trained, and none is compared with n-grams",
    ),
    Beyond(
        id="layer_norm_can_be_removed",
        title="LayerNorm can be removed with little loss",
        source=f"{IDEAS} (medium-sized)",
        sentence="GPT-2 small can be fine-tuned to do without LayerNorm and loses little.",
        reason="no models are trained",
    ),
    Beyond(
        id="transcoder_latents_cluster",
        title="Latents of one computation are active together",
        source=f"{IDEAS} (medium-sized): transcoder clustering",
        sentence="If computation is done in superposition, latents of a transcoder that belong to one computation co-activate.",
        reason="there are no transcoders here: a dictionary reads and writes the same activations",
    ),
    Beyond(
        id="steering_is_not_prompting",
        title="Steering is harder to ignore than a prompt",
        source=f"{IDEAS} (short): a guess",
        sentence="A model can ignore an instruction in its prompt more easily than a vector added to its activations.",
        reason="no text is generated, and no prompt is set against a vector",
    ),
)
