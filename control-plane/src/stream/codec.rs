//! Puts messages on the wire that were encoded before, and shared by many streams.

use bytes::{BufMut as _, Bytes};
use prost::Message as _;
use proxyxai_proto::config::v1::{StreamRequest, StreamResponse};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// One message to a node.
pub(crate) enum Frame {
    /// To be encoded for this stream alone.
    Message(StreamResponse),
    /// An encoded `StreamResponse`.
    Encoded(Bytes),
}

/// Reads requests, writes frames.
#[derive(Default)]
pub(crate) struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Frame;
    type Decode = StreamRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match frame {
            Frame::Message(message) => message
                .encode(to)
                .map_err(|error| Status::internal(error.to_string())),
            Frame::Encoded(bytes) => {
                to.put(bytes);
                Ok(())
            }
        }
    }
}

impl Decoder for FrameCodec {
    type Item = StreamRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<StreamRequest>, Status> {
        StreamRequest::decode(from)
            .map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}
