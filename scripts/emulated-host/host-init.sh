#!/bin/sh
# PID 1 of the emulated hardware host: makes /dev/kvm, mounts the outer machine's files, runs one
# job, reports its exit status, switches off. Console: the kernel's log. Job: three virtio ports.
# /job.env says KVMSNAP_HOST_REPOSITORY, _SHARE, _JOB; see initramfs.mjs.

export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
exec < /dev/null > /dev/console 2>&1
. /job.env

die() {
  echo "emulated-host: $*"
  [ -c /dev/vport0p3 ] && echo "failed $*" > /dev/vport0p3
  poweroff -f
}

load() {
  while read -r module; do
    insmod "/modules/$module.ko" "$@" || die "insmod $module failed"
  done
}

wait_for() { # seconds, what, test...
  seconds=$1 what=$2
  shift 2
  ticks=$((seconds * 50))
  until "$@"; do
    ticks=$((ticks - 1))
    [ $ticks -gt 0 ] || die "$what did not come within $seconds s"
    usleep 20000
  done
}

clocksource_is_tsc() {
  read -r clocksource < /sys/devices/system/clocksource/clocksource0/current_clocksource
  [ "$clocksource" = tsc ]
}

# A directory of the outer machine, writable here; what is written is gone at power-off.
overlay() { # path
  scratch=/scratch$1
  mkdir -p "$scratch/upper" "$scratch/work" "/newroot$1"
  mount -t overlay -o "lowerdir=/outer$1,upperdir=$scratch/upper,workdir=$scratch/work" \
    overlay "/newroot$1" || die "overlay on $1 failed"
}

load < /modules/base.list
wait_for 10 'the virtio ports' [ -c /dev/vport0p3 ]

mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose host /outer ||
  die 'cannot mount the outer machine over 9p'
mount --bind /outer /newroot
mount -t tmpfs -o mode=755 scratch /scratch

mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
chmod 666 /dev/kvm /dev/userfaultfd 2> /dev/null

mount -t tmpfs -o mode=755 run /newroot/run
mount -t tmpfs -o mode=1777 tmp /newroot/var/tmp
overlay /tmp
chmod 1777 /newroot/tmp
overlay "$KVMSNAP_HOST_REPOSITORY"
if [ -n "$KVMSNAP_HOST_SHARE" ]; then
  mkdir -p "/newroot$KVMSNAP_HOST_SHARE"
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 share "/newroot$KVMSNAP_HOST_SHARE" ||
    die "cannot mount the share $KVMSNAP_HOST_SHARE"
fi
for tree in dev proc sys; do mount --rbind "/$tree" "/newroot/$tree"; done

ifconfig lo 127.0.0.1 up
hostname emulated-host
# A hundred machines, each with its VM, vCPU and memory fds, are more than the default of 1024.
ulimit -n 65536
mkdir -m 700 /newroot/run/kvmsnap /newroot/run/kvmsnap/home
cp /job.sh /newroot/run/kvmsnap/job.sh

# KVM calibrates its guests' clock by the host's clocksource when it loads: loaded before the TSC
# has taken over (about 1.8 s after power on), timers of Linux guests stall later.
wait_for 60 'clocksource tsc' clocksource_is_tsc
load < /modules/kvm.list
load npt=1 nested=0 < /modules/kvm-vendor.list
chmod 666 /dev/kvm

# Through pipes rather than the ports themselves: a port can be opened once only, so that
# opening /dev/stderr again would fail.
mkfifo /stdout /stderr
cat /stdout > /dev/vport0p1 &
stdout=$!
cat /stderr > /dev/vport0p2 &
stderr=$!
exec 3> /dev/vport0p3
echo ready >&3
setsid chroot /newroot /bin/sh /run/kvmsnap/job.sh > /stdout 2> /stderr 3>&-
status=$?

# The pipes end when the last writer does. A daemon that the job left behind does not keep us.
ticks=250
while kill -0 $stdout 2> /dev/null || kill -0 $stderr 2> /dev/null; do
  ticks=$((ticks - 1))
  if [ $ticks -eq 0 ]; then
    echo 'left-behind' >&3
    ps > /dev/console
    break
  fi
  usleep 20000
done
sync
echo "exit $status" >&3
poweroff -f
