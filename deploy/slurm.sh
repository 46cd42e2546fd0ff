#!/usr/bin/env bash
#SBATCH --job-name=dipsweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#
# One sweep in one allocation:  sbatch deploy/slurm.sh sweep.yaml /shared/sweeps        The same again goes on where it stopped.
# Three minutes before the time is up SLURM sends SIGUSR1: trials save, and the job puts itself into the queue again. The same
# at preemption, where the site has PreemptMode=REQUEUE, a GraceTime, and SlurmctldParameters=preempt_send_user_signal; without
# that SLURM ends Ray's processes and the driver at once, and the sweep goes on from its last checkpoints.
# To end it, with all trials saved:  scancel --batch --signal=INT JOB     (a plain scancel ends everything at once)
# Run under SLURM 22.05 on two nodes: preempted, out of time, cancelled, requeued by hand (tests/chaos/test_slurm.py).
set -euo pipefail
set -m   # without it, what a script starts in the background ignores SIGINT
sweep=${1:?"give a sweep file"} storage=${2:?"give a storage that all nodes see"}
port=${RAY_PORT:-6379} dashboard=${RAY_DASHBOARD_PORT:-8265}

# Every job has a token of its own, in a folder that only its owner can enter and all nodes see.
private=$(umask 077; mktemp -d "$HOME/.dipsweep-job-XXXXXX")
dipsweep token "$private/token" >/dev/null
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$private/token" RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | tr ' ' '\n' | grep -m1 -v '^127\.')
echo "head: $head ($address), ${#nodes[@]} nodes"

finish() {
  kill "${started[@]}" 2>/dev/null || true
  wait "${started[@]}" 2>/dev/null || true
  rm -rf "$private"
}
trap finish EXIT
started=()

srun --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --block --node-ip-address="$address" --port="$port" --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" &
started+=($!)
for ((i = 1; i < ${#nodes[@]}; i++)); do
  srun --nodes=1 --ntasks=1 -w "${nodes[i]}" ray start --block --address="$address:$port" &
  started+=($!)
done

# This script runs on the head's node. The driver starts when every node has joined; ray health-check asks with the token.
for ((tries = 0; ; tries++)); do
  joined=$(ray list nodes --address="http://127.0.0.1:$dashboard" --filter state=ALIVE --format=json 2>/dev/null \
    | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))' 2>/dev/null || echo 0)
  [ "$joined" -ge "${#nodes[@]}" ] && break
  [ "$tries" -lt 90 ] || { echo "only $joined of ${#nodes[@]} nodes joined; see their lines above" >&2; exit 1; }
  sleep 2
done

# In the background, so that the shell can pass signals on while it waits. The traps come first: a signal may come as soon as the driver runs.
driver='' asked='' requeue=''
pass_on() { [ -z "$driver" ] || kill -INT "$driver" 2>/dev/null || true; }
trap 'asked=yes; pass_on' INT TERM
trap 'asked=yes; requeue=yes; pass_on' USR1
dipsweep run "$sweep" --storage "$storage" --address "$address:$port" &
driver=$!
[ -z "$asked" ] || pass_on
code=0
wait "$driver" || code=$?
while kill -0 "$driver" 2>/dev/null; do wait "$driver" || code=$?; done   # a signal ends a wait, not the driver
if [ -n "$requeue" ] && [ "$code" = 130 ]; then   # interrupted and resumable: the next start goes on
  finish
  trap - EXIT
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
