"""The plan that ``gradleak plan init`` writes: it runs as it is, and says what else could be said."""

STARTER = """\
# A plan for `gradleak audit`. It runs as it is, in well under a minute, on pictures that come with gradleak.
# Texts are audited too: docs/text.md has a plan for them.
# Every key is explained in docs/plan.md. `gradleak plan check plan.toml` looks it over and runs nothing.

title = "My first audit"
seed = 0                          # everything random follows from it

# Each defense is tried on every client below, beside none. Several around each other stand in a list.
defenses = ["gaussian:std=0.1"]
# defenses = ["sign", ["clip:norm=1", "gaussian:std=0.01"]]

attacks = "auto"                  # or names from `gradleak list attacks`
# attacks = ["ssras", "dlg:trials=4,evaluations=1000"]

ladder = "ends"                   # a server that knows everything, and one that knows least; or "all"
# ladder = ["everything known", "no labels"]

[model]
build = "mlp"                     # a model of `gradleak list models`, or yours as "module:callable"
# arguments = { classes = 10 }    # what it is handed beside its records' channels, size and classes
# weights = "weights.safetensors" # trained weights; without them, those that the seed draws


[data]
source = "digits"                 # or a folder with one for each class, x.npz, "module:callable", ...
batches = 2                       # how many updates are attacked
records = 1                       # private records in each
size = 8                          # of pictures, in pixels
# first = 0                       # the record to begin with
# channels = 1                    # of pictures: 1 is gray, 3 is colour
# normalization = { mean = [0.5], std = [0.25] }

# Ways of training, by names of your own. "gradient" sends one gradient of its whole batch.
[clients.fedsgd]
kind = "gradient"

[clients.fedavg]                  # sends how far its weights have moved
kind = "sgd"                      # or "adam"
lr = 0.05
epochs = 2
# batch = 1                       # records in a local step; all of them, unless said
# momentum = 0.9

[budget]
level = "quick"                   # or "standard", or "thorough"
# seconds = 600                   # then it stops, and keeps what is finished
# matching_gradients = 1000       # of one attack on one update, at most
# starts = 3                      # how often each attack begins anew
# target = 20                     # decibels; dearer attacks are spared where one is well past it

[limits]                          # what `gradleak check plan.toml` asks
max_psnr = 18                     # decibels, of any picture; max_rouge = 30 for texts
# max_ssim = 0.5
# max_label_accuracy = "random+0.2" # 0.2 above chance; of few records it is a coin toss
# max_leaked = 0.1                # the share of records that leak
# ways = ["fedavg"]               # those that are meant; all, unless said
"""
