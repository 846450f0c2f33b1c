# Sourced where LAB is the folder to fill, and ROOT a Debian 13 whose packages of SUITE are meant; without a ROOT, this machine's.
# A mount name space of our own: whatever happens, no mount is left behind.
[ -z "$ROOT" ] || [ -n "$OWN_MOUNTS" ] || OWN_MOUNTS=1 exec unshare -m --propagation private "$0" "$@"
cd "$LAB"
# there COMMAND...: runs it in that Debian, in the same folder; HERE is what LAB is called there.
if [ -n "$ROOT" ]; then
  mount -t proc proc "$ROOT/proc"; mount --bind "$LAB" "$ROOT/mnt"
  there() { chroot "$ROOT" /bin/sh -c 'cd "$0" && exec "$@"' "/mnt${PWD#"$LAB"}" "$@"; }
  HERE=/mnt DEFAULT=$SUITE
else
  there() { "$@"; }
  HERE=$LAB DEFAULT=bookworm
fi
# get COMMAND...: one of apt's. Its sandbox user cannot write here; that is a warning of no consequence.
get() { there "$@" -o APT::Sandbox::User=root -o APT::Default-Release="$DEFAULT" -o Dir::Cache::archives="$HERE/debs"; }
# A package list that nobody has refreshed names files that the mirror no longer has.
[ "$(id -u)" != 0 ] || get apt-get -qq update
# kernel: the packages of the kernel and its headers, by names that have a version in them; newer kernels are several packages.
kernel() {
  get apt-cache depends --recurse --no-{recommends,suggests,conflicts,breaks,replaces,enhances} linux-{image,headers}-amd64 |
    grep -E '^linux-(image|binary|modules|base|headers|kbuild)-[0-9]' | grep -v unsigned ||
    { echo "the kernel lab: the mirror of this machine's apt has no kernel of $DEFAULT" >&2; return 1; }
}
# headers DEB...: unpacks them below tmp/build, which is where they then look for themselves.
headers() {
  for d in "$@"; do dpkg -x "$d" "$LAB/tmp/build"; done
  sed -i "s|/usr/src|$HERE/tmp/build/usr/src|" "$LAB"/tmp/build/usr/src/linux-headers-*-amd64/Makefile
}
# modules FOLDER ARGUMENT...: builds the modules in tmp/FOLDER.
modules() {
  there make -s -C "$HERE/tmp/build/usr/src/$(basename "$LAB"/tmp/build/usr/src/linux-headers-*-amd64)" M="$HERE/tmp/$1" "${@:2}" modules
}
