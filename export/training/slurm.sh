#!/usr/bin/env bash
# Trains one VAE on several nodes under Slurm. Written from Slurm's manual pages; its logic
# was run with stand-ins for srun and scontrol, NOT on a cluster.
#
#     sbatch --nodes=4 slurm.sh digits --out /shared/runs/digits --batch 256
#
# The arguments are those of `keras-vae train`; --out must be a folder that all nodes see.
#
# TensorFlow's gRPC port has neither passwords nor encryption, and listens on all interfaces:
# whoever reaches it can run code as you. Where other users share the network of the nodes,
# that includes them.
#
#SBATCH --job-name=vae
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# For GPUs, all of a node to its one worker: sbatch --gpus-per-node=4 slurm.sh ...
# Two minutes before the time is over the workers, not this script, are told to stop.
#SBATCH --signal=TERM@120
# Slurm starts the job again, under its old number, when a node is lost.
#SBATCH --requeue
set -euo pipefail

# The cluster's defaults may kill all tasks when the first has ended. But workers that lose
# one end by themselves, with the code that says so.
code=0 # the highest of all workers
srun --kill-on-bad-exit=0 --wait=0 \
  keras-vae train "$@" --resume --strategy multi-worker || code=$?

# 75: stopped by a signal, the last backup is whole. 69: a worker never came or was lost;
# above 128: it was killed, for want of memory perhaps, and so may be again.
if ((code == 75)) || (((code == 69 || code > 128) && ${SLURM_RESTART_COUNT:-0} < 20)); then
  echo "The workers ended with $code: queued again." >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
