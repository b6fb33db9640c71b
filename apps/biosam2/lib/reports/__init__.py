"""What a person looks at afterwards: outlines on images, contact sheets, figures, a page."""
