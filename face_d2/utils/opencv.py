"""``import face_d2.utils.opencv`` before ``cv2``: if OpenCV does not import, the error says what to
do."""

from face_d2.utils.requirements import require_opencv

require_opencv()
