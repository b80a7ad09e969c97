# make demo      the Space on a local address (needs Python 3.11 to 3.13 and make)
# make test      lint and the whole test suite
# make verify    evaluates every packaged model on the real data: make verify DATA=path/to/fer2013
# make reproduce trains and scores everything anew into runs/reproduce: make reproduce DATA=path/to/fer2013

PYTHON ?= python3
VENV := .venv

.PHONY: demo test verify reproduce data-given

demo: $(VENV)/.demo
	$(VENV)/bin/python app.py

test: $(VENV)/.dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n auto --dist loadfile

verify: data-given $(VENV)/.dev
	$(VENV)/bin/python train/verify.py --data "$(DATA)"

# JOBS=6 trains six at a time on one GPU, SEEDS=1 one seed of each comparison in place of three,
# ONLY=fer_cnn.fer2013 makes that file and what it comes from
reproduce: data-given $(VENV)/.dev
	$(VENV)/bin/python train/reproduce.py --data "$(DATA)" --jobs $(or $(JOBS),1) --seeds $(or $(SEEDS),3) \
		$(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(ONLY),--only $(ONLY))

# as the scripts look for it
DATA ?= $(or $(FER2013),$(wildcard data/fer2013))

data-given:
	@test -n "$(DATA)" || { echo "Say where FER2013 is: make $(MAKECMDGOALS) DATA=path/to/fer2013" >&2; exit 2; }

# One stamp file an extra (dev has all of demo): a second run installs nothing until the requirements change.
$(VENV)/.%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "fer-zoo needs Python 3.11, 3.12 or 3.13 (name one: make $(MAKECMDGOALS) PYTHON=python3.12)." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -c constraints.txt -e ".[$*]"
	touch $@ $(if $(filter dev,$*),$(VENV)/.demo)
