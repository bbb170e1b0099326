"""What versions do that their users would not expect: one sentence or two each, quoted by the registry's specs."""

ABSOLUTE = (
    "The scalar depends on the loss's absolute scale: a fall of 0.4 between the averages leaves less than"
    " 4 % of the learning rate."
)
ROUNDING = (
    "Which average the scalar uses is decided by the last bit of a float64: a change of 1e-12 in the loss"
    " changes a later step size by a median factor of 40. branch='quieter' is what upstream's comments describe."
)
BRAKE = (
    "The brake assigns instead of multiplying: after a quiet phase one loss three times the normal can raise"
    " the pulse 26-fold, and it stays up."
)
CAP = "A plain fall of the loss to half its level drives the pulse to its cap in 6 steps."
PER_TENSOR = (
    "Upstream adds to the window of the stop signal once per parameter tensor, so that 32 entries are one step of a"
    " model; here it is once per step."
)
LATCH = "The stop signal stays up once it was up."
STOP = (
    "The stop signal needs a loss average of at most stopcoef, in units of the loss. A cross-entropy of 1.5 never gets"
    " down to its default, 0.04: set it to a loss at which you would stop."
)
FILTER = "The emotional filter closes only where |gradient| is below about 1e-12 (in vectors of EmoAiry: 1e-6)."
SIGN = (
    "The factored denominator of the released code is positive and drops out of the sign: this is signSGD and"
    " keeps no state. Not copied: the released code loses denormal gradients, and one inf, NaN or overflowing square"
    " freezes its row and column for good (3.8 and 3.9: from |gradient| of about 4e9 on, for as long as it lasts)."
)
MOMENTUM_SIGN = "The released second moment divides by sign(sqrt(v) + eps) = 1: this is the sign of the momentum."
WITHDRAWN = (
    "Withdrawn by its author three days after release. Upstream advanced noise and distance once per"
    " tensor; here it is once per step."
)
BOUND = "lr does not scale the pulse, it only bounds it: the pulse is at most 20 lr."
UNBIASED = (
    "No bias correction: with a constant gradient the first steps are up to 3 times (betas 0.9, 0.995) or"
    " 6.5 times (0.9, 0.999) the step size."
)
VECTORS = "The second moment of vectors decays by beta1 but grows by 1 - beta2."
GROUPS = (
    "Upstream's norm reads the first parameter group, frozen weights included; here it is every weight with"
    " a gradient in all groups."
)
FRESHNESS = "The next reference norm is the norm times its relative change, so freshness cycles (0.1, 1, 1)."
GRADIENTS = "Upstream overwrites the gradients with their signs; here they are left alone."
NO_DECAY = "There is no weight decay."
ZEAL = "The momentum in the blend of matrices is never advanced, so it stays 0."
NECO = "Upstream's softsign zone raises NameError (eps is undefined there); here it uses the group's eps."
CLAN = "All three states are kept side by side, and each stands still while another rule is in charge."
EXPERIMENT = "Experimental: an idea from a README, in no release; its emotion is tiny for usual gradients."
SHRINKS = "With use_shadow the mixing weights do not sum to one: a series of shocks shrinks the weights towards zero."
FREE_DOMAIN = (
    "It needs a loss that measures progress: under policy gradients, whose loss hovers around 0, it has nothing to go"
    " by. A constant added to the loss makes it start higher."
)
FREE_CLIPPING = (
    "Gradients that were clipped in a loop of your own make it grow too fast, unless `note_clipping` tells by how"
    " much; under a Trainer and under accelerate it is told."
)
FREE_COUNT = (
    "The bias correction counts the steps of the parameter group: a tensor that joins later starts with the mean"
    " square of its first gradient, and one that pauses takes longer steps when it comes back soon after its start."
)
