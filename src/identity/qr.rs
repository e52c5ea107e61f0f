//! QR codes (ISO/IEC 18004) as pictures, for apps that show them without a library of their own.

use data_encoding::BASE64;
use qrcode::render::svg;
use qrcode::{Color, EcLevel, QrCode};

/// Least width and height in an SVG's units.
const SVG_SIZE: u32 = 240;
/// Light modules around a code (ISO/IEC 18004, section 9.1).
const QUIET: usize = 4;
/// Pixels of a module's side in a PNG. With one bit per pixel a module is a byte of a row.
const SIDE: usize = 8;

/// A code in two forms.
#[derive(Debug)]
pub struct Pictures {
    /// A document in SVG.
    pub svg: String,
    /// A `data:` URI (RFC 2397) of a PNG.
    pub png: String,
}

/// Draws a text; `None` when it is too long for a code.
#[must_use]
pub fn draw(text: &str) -> Option<Pictures> {
    let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::M).ok()?;
    let svg = code.render::<svg::Color<'_>>().min_dimensions(SVG_SIZE, SVG_SIZE).build();
    let png = format!("data:image/png;base64,{}", BASE64.encode(&png(&code)?));
    Some(Pictures { svg, png })
}

fn png(code: &QrCode) -> Option<Vec<u8>> {
    let modules = code.to_colors();
    let width = code.width() + 2 * QUIET;
    let light = vec![0xff; width];
    let mut rows = vec![light.clone(); QUIET];
    for line in modules.chunks(code.width()) {
        let mut row = light.clone();
        let dark = row.iter_mut().skip(QUIET).zip(line).filter(|(_, module)| **module == Color::Dark);
        dark.for_each(|(byte, _)| *byte = 0);
        rows.push(row);
    }
    rows.extend(vec![light; QUIET]);
    let pixels: Vec<u8> = rows.iter().flat_map(|row| std::iter::repeat_n(row, SIDE)).flatten().copied().collect();
    let side = u32::try_from(width * SIDE).ok()?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(&pixels).ok()?;
    writer.finish().ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn both_pictures_show_the_code_and_no_text() {
        let text = "otpauth://totp/Sotto:%2B41791234567?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        let Pictures { svg, png } = draw(text).unwrap();
        assert!(svg.starts_with("<?xml") && svg.contains("<svg") && svg.contains("<path"), "{svg}");
        assert!(!svg.contains("GEZDGNBV"), "a picture and no text");
        // Read again as a picture, module by module.
        let file = BASE64.decode(png.strip_prefix("data:image/png;base64,").unwrap().as_bytes()).unwrap();
        let mut decoder = png::Decoder::new(Cursor::new(file));
        decoder.set_transformations(png::Transformations::IDENTITY);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::M).unwrap();
        let modules = code.width() + 2 * QUIET;
        assert_eq!((frame.width, frame.height), (frame.width, frame.width));
        assert_eq!(usize::try_from(frame.width).unwrap(), modules * SIDE);
        for (y, row) in pixels.chunks(modules).enumerate() {
            for (x, byte) in row.iter().enumerate() {
                let inside = |at: usize| at.checked_sub(QUIET).filter(|at| *at < code.width());
                let is_dark = inside(x).zip(inside(y / SIDE)).is_some_and(|place| code[place] == Color::Dark);
                assert_eq!(*byte, if is_dark { 0 } else { 0xff }, "{x} {y}");
            }
        }
        assert!(draw(&"x".repeat(5000)).is_none());
    }
}
