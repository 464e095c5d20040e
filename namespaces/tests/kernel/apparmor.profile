# Compiled into apparmor.bin, so that the test needs no apparmor_parser(8). Its features are a file of this:
#   policy {versions {v7 {yes } v6 {yes } v5 {yes } } }
#   file {mask {create read write exec append mmap_exec link lock } }
# with each brace that closes on a line of its own; then
#   apparmor_parser --config-file /dev/null -Q -K -M FEATURES -o apparmor.bin apparmor.profile
profile cofferdam-test flags=(attach_disconnected) {
  capability,
  file,
  deny /**/refused rw,
}
