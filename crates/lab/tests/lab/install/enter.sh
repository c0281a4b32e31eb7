# Becomes a machine on which Buoy is installed, then runs the command given.
#
# Arguments: the directory into which it was installed, the command. Runs in a mount namespace of its own: what is
# installed lies over the machine's own directories, which nobody can write to, and only what a service manager makes
# for the unit (StateDirectory, RuntimeDirectory) is writable.
set -eu
root=$1
shift

mkdir -p "$root/var/lib/buoy" "$root/state"
for path in usr etc opt var; do
    mkdir -p "/$path"
    mount -t overlay overlay -o "lowerdir=$root/$path:/$path" "/$path"
done
mount --bind "$root/state" /var/lib/buoy
mount -t tmpfs tmpfs /run
mkdir -m 700 /run/buoy
exec "$@"
