#!/bin/bash
# No object uses one of a higher layer, no kind another kind (tools/layers says which may use which).
set -eu
"${SRC:?}/tools/layers" "${BUILD:?}" > graph || { cat graph; exit 1; }
grep -q '^flow/dump: ' graph
