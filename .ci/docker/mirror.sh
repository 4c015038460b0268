# Sourced: `debian_mirror` prints the mirror this machine itself uses for Debian, read from either form of apt's sources.
debian_mirror() {
  local found
  found=$(
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
      awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^https?:.*\/debian\/?$/) { print $i; exit } }'
  ) || true
  if [[ -z "$found" ]]; then
    found=$(
      cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
        awk '$1 == "URIs:" { for (i = 2; i <= NF; i++) if ($i ~ /^https?:.*\/debian\/?$/) { print $i; exit } }'
    ) || true
  fi
  if [[ -z "$found" ]]; then
    echo "mirror.sh: apt's sources of this machine name no Debian mirror (a URL that ends in /debian); add one" >&2
    return 1
  fi
  echo "$found"
}
