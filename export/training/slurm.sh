#!/usr/bin/env bash
# Trains one VAE on several nodes under Slurm. Written from Slurm's manual pages; its logic
# was tested with replacements for srun and scontrol, NOT on a cluster.
#
#     sbatch --nodes=4 slurm.sh digits --out /shared/runs/digits --batch 256
#
# The arguments are those of `keras-vae train`; --out must be a shared folder.
#
# TensorFlow's gRPC port has neither passwords nor encryption, and listens on all interfaces:
# anyone who can reach it can run code as you. This includes other users who share the
# network of the nodes.
#
#SBATCH --job-name=vae
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# With GPUs, one worker uses all GPUs of its node: sbatch --gpus-per-node=4 slurm.sh ...
# Sends SIGTERM to the workers, not to this script, two minutes before the time limit.
#SBATCH --signal=TERM@120
# Slurm starts the job again, with the same id, if a node is lost.
#SBATCH --requeue
set -euo pipefail

# The cluster's defaults may kill all tasks when the first one ends. But workers that lose
# another worker end by themselves, with the right exit code.
code=0 # the highest exit code of all workers
srun --kill-on-bad-exit=0 --wait=0 \
  keras-vae train "$@" --resume --strategy multi-worker || code=$?

# 75: stopped by a signal, the last backup is complete. 69: a worker did not start or was
# lost. Above 128: it was killed, perhaps for lack of memory, which may happen again.
if ((code == 75)) || (((code == 69 || code > 128) && ${SLURM_RESTART_COUNT:-0} < 20)); then
  echo "The workers exited with $code: the job is requeued." >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
