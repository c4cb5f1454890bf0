#!/bin/sh
# image.sh FOLDER: an image of one empty layer, in the OCI layout.
set -e
mkdir -p "$1/blobs/sha256" empty
cd "$1"
blob() { # FILE: moves it to its place and prints digest and size
  digest=$(sha256sum <"$1" | cut -d' ' -f1)
  size=$(wc -c <"$1")
  mv "$1" "blobs/sha256/$digest"
  echo "\"digest\":\"sha256:$digest\",\"size\":$size"
}
tar --mtime=@0 --owner=0 --group=0 --numeric-owner -cf layer.tar -C ../empty .
diff=$(sha256sum <layer.tar | cut -d' ' -f1)
gzip -n layer.tar
layer=$(blob layer.tar.gz)
echo "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$diff\"]}}" >config
config=$(blob config)
echo "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",$config},\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",$layer}]}" >manifest
manifest=$(blob manifest)
echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",$manifest,\"annotations\":{\"org.opencontainers.image.ref.name\":\"1\"}}]}" >index.json
echo '{"imageLayoutVersion":"1.0.0"}' >oci-layout
