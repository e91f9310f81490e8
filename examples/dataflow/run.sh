#!/bin/sh
# A run on Dataflow: PROJECT=… BUCKET=… [REGION=europe-west1] examples/dataflow/run.sh
# Builds the workers' image where it is not there yet, and runs the job; again, to continue one that was stopped.
set -eu
: "${PROJECT:?names the Google Cloud project}" "${BUCKET:?names the bucket of pictures and store}"
REGION=${REGION:-europe-west1}
cd "$(dirname "$0")/../.."
IMAGE="$REGION-docker.pkg.dev/$PROJECT/lookalike/worker"

gcloud artifacts docker images describe "$IMAGE" --project "$PROJECT" >/dev/null 2>&1 ||
  gcloud builds submit --project "$PROJECT" --region "$REGION" --tag "$IMAGE" .

exec lookalike index --config configs/dataflow.yaml \
  --images "gs://$BUCKET/photos" --store "gs://$BUCKET/photos.store" \
  -- --project="$PROJECT" --region="$REGION" --temp_location="gs://$BUCKET/beam" --sdk_container_image="$IMAGE"
