// The parts of three.js that the page uses, in place of all of it: the page stays small.
export { PerspectiveCamera } from 'three/src/cameras/PerspectiveCamera.js';
export { MOUSE, TOUCH } from 'three/src/constants.js';
export { Controls } from 'three/src/extras/Controls.js';
export { Plane } from 'three/src/math/Plane.js';
export { Quaternion } from 'three/src/math/Quaternion.js';
export { Ray } from 'three/src/math/Ray.js';
export { Spherical } from 'three/src/math/Spherical.js';
export { Vector2 } from 'three/src/math/Vector2.js';
export { Vector3 } from 'three/src/math/Vector3.js';
import * as MathUtils from 'three/src/math/MathUtils.js';
export { MathUtils };
