"""A program that proposes: nas search --strategy "command:python examples/my_proposer.py"

It draws as the strategy `random` does, trial for trial. A space of your own is named once more, as its argument.
"""

import json
import sys

import search_spaces
from nas_core import refs
from nas_core.seeds import generator
from nas_core.strategy import Setting
from strategies.basic.random_search import draw

for line in sys.stdin:
    message = json.loads(line)
    if "study" in message:  # the first line
        study, told = message["study"], set()
        reference = sys.argv[1] if len(sys.argv) > 1 else study["space"]
        space = refs.load(reference, search_spaces.BUILTIN, search_spaces.GROUP, "space").object
        setting = Setting(space, study["seed"], (), identity=space.identity)
    elif "outcome" in message:  # of every trial, in the order of the search
        told.add(message["outcome"]["identity"])
    elif "ask" in message:  # answered by one line
        known = told | {trial["identity"] for trial in message["ask"]["pending"]}
        arch = draw(setting, known.__contains__, generator(study["seed"], message["ask"]["number"], "draw"))
        print(json.dumps({"architecture": dict(arch.values)} if arch else {"exhausted": "all is known"}), flush=True)
